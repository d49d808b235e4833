"""A database role that row-level security does not bind is refused before anything serves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import psycopg
import pytest
from psycopg import sql

from saas import embedded
from saas.database_role import require_bound_role
from saas.processes import ProcessFailed


@pytest.fixture(scope="module")
def server() -> Iterator[embedded.Postgres]:
    """A server of its own, since roles are the whole server's, with one table of the migrator."""
    with embedded.temporary() as services:
        with psycopg.connect(services.postgres.url_for("migrator")) as owner:
            owner.execute("CREATE TABLE owned (word text)")
        yield services.postgres


def test_it_works_with_the_two_serving_roles(server: embedded.Postgres) -> None:
    for role in ("app", "operator"):
        with nullcontext():  # raises nothing
            require_bound_role("DATABASE_URL", server.url_for(role))


def test_superuser_and_owner_are_refused(server: embedded.Postgres) -> None:
    with pytest.raises(ProcessFailed, match="role in DATABASE_URL is a superuser"):
        require_bound_role("DATABASE_URL", server.url_for("superuser"))
    with pytest.raises(ProcessFailed, match="owns tables"):
        require_bound_role("DATABASE_URL", server.url_for("migrator"))


@pytest.mark.parametrize(
    ("grant", "fault"),
    [("ALTER ROLE {} BYPASSRLS", "has BYPASSRLS"), ("GRANT migrator TO {}", "owns tables")],
)
def test_a_role_that_was_given_too_much_is_refused(server: embedded.Postgres, grant: str, fault: str) -> None:
    name = sql.Identifier("strong")
    with psycopg.connect(server.url_for("superuser"), autocommit=True) as control:
        control.execute(sql.SQL("CREATE ROLE {} LOGIN NOINHERIT PASSWORD 'strong'").format(name))
        control.execute(sql.SQL("GRANT CONNECT ON DATABASE cloister TO {}").format(name))
        try:
            url = f"postgresql://strong:strong@127.0.0.1:{server.port}/cloister"
            require_bound_role("DATABASE_URL", url)
            control.execute(sql.SQL(grant).format(name))
            with pytest.raises(ProcessFailed, match=fault):
                require_bound_role("DATABASE_URL", url)
        finally:
            control.execute(sql.SQL("DROP OWNED BY {}").format(name))
            control.execute(sql.SQL("DROP ROLE {}").format(name))
