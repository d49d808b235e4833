"""Which migrations a database still lacks, asked without Django's connections (they are set before it starts)."""

from __future__ import annotations

import psycopg
from django.db.migrations.loader import MigrationLoader


def pending(url: str) -> int:
    """How many migrations of this code are not applied to the database at `url` (role migrator)."""
    on_disk = set(MigrationLoader(None, ignore_no_migrations=True).disk_migrations)
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT to_regclass('django_migrations')").fetchone()
        if row is None or row[0] is None:
            return len(on_disk)
        applied = set(connection.execute("SELECT app, name FROM django_migrations").fetchall())
    return len(on_disk - applied)
