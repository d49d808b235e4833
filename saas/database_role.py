"""Refuses to serve as a database role that row-level security does not bind: superuser, owner or BYPASSRLS."""

from __future__ import annotations

import psycopg

from saas.processes import ProcessFailed

QUESTION = """
SELECT role.rolsuper, role.rolbypassrls,
       EXISTS (SELECT 1 FROM pg_class
               WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace
                 AND pg_has_role(role.oid, relowner, 'MEMBER'))
FROM pg_roles AS role WHERE role.rolname = current_user
"""


def require_bound_role(variable: str, url: str) -> None:
    """Raise ProcessFailed, naming the environment variable, when the role at `url` could pass row security."""
    with psycopg.connect(url, connect_timeout=10) as connection:
        row = connection.execute(QUESTION).fetchone()
    assert row is not None
    faults = ("is a superuser", "has BYPASSRLS", "owns tables, or belongs to their owner")
    for is_faulty, fault in zip(row, faults, strict=True):
        if is_faulty:
            raise ProcessFailed(
                f"The database role in {variable} {fault}: row-level security would not keep tenants apart. "
                "Cloister serves only as the roles app and operator; the README says how to make them."
            )
