"""The embedded PostgreSQL and Valkey: start, stop, crash, start again, and what their roles may not do."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from saas import embedded
from saas.processes import ProcessFailed, free_port, port_is_free, wait_until

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty data folder, with a space and an accent in its name."""
    made = Path(tempfile.mkdtemp(prefix="cloister-ops-"))
    made.chmod(0o755)
    yield made / "data folder é"
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def services() -> Iterator[embedded.Embedded]:
    """One running pair for the tests that do not stop it."""
    with embedded.temporary() as running:
        yield running


def is_running(pid: int) -> bool:
    """Whether the process runs; a dead one that nobody reaped does not count."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def test_it_works_and_a_second_start_finds_the_data(folder: Path) -> None:
    first = embedded.start(folder)
    try:
        assert embedded.environment(folder) == first.environment()
        assert first.postgres.owns_its_directory()
        with psycopg.connect(first.postgres.url_for("migrator")) as connection:
            connection.execute("CREATE TABLE kept (word text)")
            connection.execute("INSERT INTO kept VALUES ('still here')")
        assert redis.Redis.from_url(first.valkey.url_for()).ping()
    finally:
        first.stop()
    assert not is_running(first.postgres.pid)
    assert not is_running(first.valkey.pid)
    assert embedded.environment(folder) == {}
    second = embedded.start(folder)
    try:
        with psycopg.connect(second.postgres.url_for("migrator")) as connection:
            assert connection.execute("SELECT word FROM kept").fetchone() == ("still here",)
    finally:
        second.stop()


def test_two_owners_of_one_folder_are_refused(folder: Path) -> None:
    running = embedded.start_valkey(folder)
    try:
        with pytest.raises(ProcessFailed, match="already runs in"):
            embedded.start_valkey(folder)
    finally:
        running.stop()
    embedded.start_valkey(folder).stop()


def test_a_preferred_port_is_kept_and_a_taken_one_avoided(folder: Path) -> None:
    port = free_port()
    first = embedded.start_valkey(folder, port=port)
    try:
        assert first.port == port
        other = embedded.start_valkey(folder.with_name("other"), port=port)
        other.stop()
        assert other.port != port
    finally:
        first.stop()


def test_passwords_are_needed_and_kept_private(services: embedded.Embedded) -> None:
    for name in ("postgres.passwords", "valkey.passwords", "postgres.json"):
        mode = (services.data_dir / "run" / name).stat().st_mode
        assert stat.S_IMODE(mode) == 0o600
    wrong = services.postgres.url_for("app").replace(services.postgres.passwords["app"], "guess")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=services.valkey.port).ping()
    command_line = Path(f"/proc/{services.valkey.pid}/cmdline").read_bytes()
    assert services.valkey.password.encode() not in command_line


def test_the_servers_do_not_run_as_root(services: embedded.Embedded) -> None:
    for pid in (services.postgres.pid, services.valkey.pid):
        assert Path(f"/proc/{pid}").stat().st_uid != 0


def test_roles_cannot_bypass_row_security_or_truncate(services: embedded.Embedded) -> None:
    with psycopg.connect(services.postgres.url_for("migrator")) as owner:
        owner.execute("CREATE TABLE rows_of_tenants (tenant text)")
        owner.execute("INSERT INTO rows_of_tenants VALUES ('acme'), ('globex')")
        owner.execute("ALTER TABLE rows_of_tenants ENABLE ROW LEVEL SECURITY")
        owner.execute("ALTER TABLE rows_of_tenants FORCE ROW LEVEL SECURITY")
        owner.execute("CREATE POLICY own ON rows_of_tenants USING (tenant = 'acme')")
        owner.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON rows_of_tenants TO app, operator")
        owner.commit()
        assert owner.execute("SELECT count(*) FROM rows_of_tenants").fetchone() == (1,)
    with psycopg.connect(services.postgres.url_for("superuser")) as control:
        assert control.execute("SELECT count(*) FROM rows_of_tenants").fetchone() == (2,)
    for role in ("app", "operator"):
        with psycopg.connect(services.postgres.url_for(role), autocommit=True) as connection:
            assert connection.execute("SELECT count(*) FROM rows_of_tenants").fetchone() == (1,)
            for statement in (
                "TRUNCATE rows_of_tenants",
                "ALTER TABLE rows_of_tenants DISABLE ROW LEVEL SECURITY",
                "CREATE TABLE own (word text)",
                "CREATE DATABASE mine",
                "SET ROLE migrator",
                "SET SESSION AUTHORIZATION superuser",
                f"ALTER ROLE {role} BYPASSRLS",
                "COPY rows_of_tenants TO '/tmp/out'",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("SET row_security = off")
                connection.execute("SELECT * FROM rows_of_tenants")


def test_only_the_three_roles_enter_the_database(services: embedded.Embedded) -> None:
    with psycopg.connect(services.postgres.url_for("superuser"), autocommit=True) as control:
        control.execute("CREATE ROLE stranger LOGIN PASSWORD 'stranger'")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(f"postgresql://stranger:stranger@127.0.0.1:{services.postgres.port}/cloister")
    with psycopg.connect(services.postgres.url_for("app")) as connection:
        flags = connection.execute(
            "SELECT rolname FROM pg_roles WHERE rolname IN ('migrator', 'app', 'operator') AND"
            " (rolsuper OR rolbypassrls OR rolcreaterole OR rolreplication)"
        ).fetchall()
    assert flags == []


def test_a_killed_postgres_leaves_a_stale_file_and_the_next_start_recovers(folder: Path) -> None:
    first = embedded.start_postgres(folder)
    with psycopg.connect(first.url_for("migrator")) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
    first.process.kill()
    first.process.wait()
    stale = first.data_dir / "postmaster.pid"
    assert stale.exists()
    # The worst stale file: its number now belongs to a living stranger of the same user.
    lines = stale.read_text().split("\n")
    stranger = subprocess.Popen(["sleep", "60"], user=stale.stat().st_uid, extra_groups=[])
    stale.write_text("\n".join([str(stranger.pid), *lines[1:]]))
    first.lock.release()
    try:
        second = embedded.start_postgres(folder)
        try:
            with psycopg.connect(second.url_for("migrator")) as connection:
                assert connection.execute("SELECT one FROM kept").fetchone() == (1,)
        finally:
            second.stop()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_half_made_cluster_is_made_again(folder: Path) -> None:
    home = embedded.start_valkey(folder)
    home.stop()
    partial = (folder / "services" / "pg.partial").resolve()
    partial.mkdir()
    (partial / "PG_VERSION").write_text("18\n")
    server = embedded.start_postgres(folder, is_durable=False)
    assert server.stop()
    assert not partial.exists()


def test_lost_passwords_get_a_sentence(folder: Path) -> None:
    embedded.start_postgres(folder, is_durable=False).stop()
    (folder / "run" / "postgres.passwords").unlink()
    with pytest.raises(ProcessFailed, match="lost its password file"):
        embedded.start_postgres(folder)


def test_nothing_outlives_a_killed_parent(folder: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from saas import embedded;"
        "s = embedded.start(Path(sys.argv[1]));"
        "print(s.postgres.pid, s.valkey.pid, s.postgres.port, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    postgres, valkey, port = (int(word) for word in parent.stdout.readline().split())
    assert is_running(postgres)
    assert is_running(valkey)
    assert not port_is_free(port)
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    assert wait_until(lambda: not is_running(postgres) and not is_running(valkey), seconds=10)
    again = embedded.start(folder)
    assert again.postgres.owns_its_directory()
    again.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root drops to another user")
def test_a_data_folder_that_the_service_user_cannot_reach(folder: Path) -> None:
    folder.parent.chmod(0o700)
    server = embedded.start_postgres(folder, is_durable=False)
    place = server.home.place
    server.stop()
    try:
        assert place.parent == Path("/var/lib/cloister")
        assert place.stat().st_uid != 0
        again = embedded.start_postgres(folder)
        assert again.home.place == place
        again.stop()
    finally:
        shutil.rmtree(place)
