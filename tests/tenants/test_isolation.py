"""The wall: without a scope there are no rows, with one there are only one's own, in SQL and through a pool too."""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from django.conf import settings
from django.db import ProgrammingError, connection, transaction
from psycopg_pool import ConnectionPool

from tenants import queries
from tenants.models import ApiKey, ApiKeySecret, DataKey, Member, Tenant
from tenants.scope import OutOfScope, current, door, scope

MEMBERS = "SELECT count(*) FROM tenants_member WHERE tenant_id = %s"


def rows(statement: str, *values: Any) -> Any:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return cursor.fetchone()[0]


def address(alias: str = "default") -> dict[str, Any]:
    database = settings.DATABASES[alias]
    found = {"host": database["HOST"], "port": database["PORT"] or None, "dbname": database["NAME"]}
    found |= {"user": database["USER"], "password": database["PASSWORD"]}
    return found | {key: value for key, value in database["OPTIONS"].items() if key != "pool"}


def test_it_works(acme: Any, globex: Any) -> None:
    with scope(acme):
        assert rows(MEMBERS, acme.pk) == 3  # control: in scope they are there
        assert rows(MEMBERS, globex.pk) == 0
        assert rows("SELECT count(*) FROM tenants_tenant") == 1
    assert rows(MEMBERS, acme.pk) == rows(MEMBERS, globex.pk) == 0


def test_raw_sql_without_a_scope_sees_no_row_of_any_tenant_table(acme: Any, people: Any) -> None:
    people.key(acme)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT table_name FROM information_schema.columns "
            "WHERE column_name = 'tenant_id' AND table_schema = 'public'"
        )
        tables = [name for (name,) in cursor.fetchall()]
    assert len(tables) >= 8
    for table in tables:
        assert rows(f'SELECT count(*) FROM "{table}"') == 0, table
    with scope(acme):
        assert all(
            rows(f"SELECT count(*) FROM {table}")
            for table in ("tenants_member", "tenants_apikey", "tenants_datakey")
        )


def test_writing_into_another_tenant_is_refused(acme: Any, globex: Any, people: Any) -> None:
    user = people.user("mallory")
    with pytest.raises(ProgrammingError, match="row-level security"), scope(acme):
        Member(tenant=globex, user=user, role="owner").save(force_insert=True)
    with scope(acme):
        assert Member._base_manager.filter(tenant_id=globex.pk).update(role="viewer") == 0
        assert Member._base_manager.filter(tenant_id=globex.pk).delete()[0] == 0
    with pytest.raises(ProgrammingError, match="row-level security"), scope(acme):
        Member._base_manager.filter(user=people.user("bob")).update(tenant_id=globex.pk)
    with scope(globex):
        assert Member.objects.of(globex).get().role == "owner"


def test_a_row_cannot_point_into_another_tenant(acme: Any, globex: Any, people: Any) -> None:
    people.key(globex)
    with scope(globex):
        theirs = ApiKey.objects.of(globex).get()
    with pytest.raises(Exception, match="violates foreign key constraint"), scope(acme):
        ApiKeySecret.objects.of(acme).create(key_id=theirs.pk, digest="0" * 64)
    people.key(acme)
    with scope(acme):  # control: within one tenant the same insert is fine
        own = ApiKey.objects.of(acme).get()
        ApiKeySecret.objects.of(acme).create(key_id=own.pk, digest=uuid.uuid4().hex)


def test_the_handrail_raises(acme: Any, globex: Any) -> None:
    for ask in (
        Member.objects.all,
        Member.objects.count,
        lambda: Member.objects.filter(role="owner"),
        lambda: Member.objects.of(acme),
    ):
        with pytest.raises(OutOfScope):
            ask()
    with scope(acme), pytest.raises(OutOfScope):
        Member.objects.of(globex)


def test_scopes_nest_and_end(acme: Any, globex: Any) -> None:
    with scope(acme):
        with scope(globex):
            assert (current(), rows(MEMBERS, globex.pk), rows(MEMBERS, acme.pk)) == (globex.pk, 1, 0)
        assert (current(), rows(MEMBERS, globex.pk), rows(MEMBERS, acme.pk)) == (acme.pk, 0, 3)
        with pytest.raises(RuntimeError), scope(globex):
            raise RuntimeError
        assert (current(), rows(MEMBERS, acme.pk)) == (acme.pk, 3)
    with transaction.atomic():
        with scope(acme):
            pass
        assert rows(MEMBERS, acme.pk) == 0  # the outer transaction does not keep the setting
    assert current() is None


def test_a_door_shows_what_it_is_for_and_nothing_else(acme: Any, globex: Any, people: Any) -> None:
    alice = people.user("alice")
    assert [tenant.pk for tenant in queries.tenants_of(alice)] == [acme.pk]
    with door("user_id", str(alice.pk)):
        assert rows("SELECT count(*) FROM tenants_member") == 1
        assert (
            rows("SELECT count(*) FROM tenants_apikey") == rows("SELECT count(*) FROM tenants_datakey") == 0
        )
        assert Member._base_manager.update(role="viewer") == 0  # a door is for reading
    assert rows("SELECT count(*) FROM tenants_member") == 0
    with pytest.raises(OutOfScope), door("tenant_id", str(acme.pk)):
        pass


def test_the_app_role_is_no_owner_and_cannot_step_around(acme: Any) -> None:
    found = rows(
        "SELECT rolsuper::int + rolbypassrls::int + rolcreaterole::int + rolcreatedb::int "
        "FROM pg_roles WHERE rolname = current_user"
    )
    assert found == 0
    assert rows("SELECT count(*) FROM pg_class WHERE pg_get_userbyid(relowner) = current_user") == 0
    for statement in (
        "ALTER TABLE tenants_member DISABLE ROW LEVEL SECURITY",
        "TRUNCATE tenants_member",
        "SET ROLE migrator",
        "CREATE TABLE public.mine (id int)",
    ):
        with pytest.raises(ProgrammingError), transaction.atomic():
            rows(statement)


def test_the_operator_reads_no_keys(acme: Any, people: Any) -> None:
    people.key(acme)
    assert (
        Member.objects.everywhere().filter(tenant_id=acme.pk).count() == 3
    )  # control: what it may read, it sees
    assert Tenant.objects.using("operator").filter(pk=acme.pk).count() == 1
    for model in (DataKey, ApiKeySecret):
        with pytest.raises(ProgrammingError, match="permission denied"), transaction.atomic(using="operator"):
            model.objects.everywhere().count()


@contextmanager
def pool() -> Iterator[ConnectionPool[psycopg.Connection]]:
    """Two connections of the app role that everybody shares."""
    with ConnectionPool(kwargs=address(), min_size=2, max_size=2, open=True) as made:
        yield made


def interleave(made: ConnectionPool[psycopg.Connection], tenants: list[Any], local: bool) -> int:
    """Reads that saw a tenant other than the one meant, out of 4 threads x 100 reads over two connections."""
    wrong: list[int] = []

    def read(seed: int) -> None:
        draw = random.Random(seed)
        for _ in range(100):
            tenant = draw.choice(tenants)
            with made.connection() as link:  # one checkout is one transaction
                link.execute("SELECT set_config('app.tenant_id', %s, %s)", [str(tenant.pk), local])
            with made.connection() as link:
                if local:
                    link.execute("SELECT set_config('app.tenant_id', %s, true)", [str(tenant.pk)])
                seen = link.execute("SELECT DISTINCT tenant_id FROM tenants_member").fetchall()
                if [row for (row,) in seen] != [tenant.pk]:
                    wrong.append(1)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(wrong)


def test_a_pool_mixes_sessions_but_never_transactions(acme: Any, globex: Any) -> None:
    with pool() as made:
        assert interleave(made, [acme, globex], local=True) == 0
        with made.connection() as link:  # what a pooled connection is left with
            assert link.execute("SELECT count(*) FROM tenants_member").fetchone() == (0,)
    with pool() as made:  # control: a session-level setting behind the same pool reads the wrong tenant
        assert interleave(made, [acme, globex], local=False) > 0
