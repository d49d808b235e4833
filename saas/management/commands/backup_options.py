"""Options for pg_dump that keep the backup of keys apart from that of data."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from tenants.backups import key_tables


class Command(BaseCommand):
    """`pg_dump $(manage.py backup_options data) …` and `pg_dump $(manage.py backup_options keys) …`."""

    help = __doc__
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Which of the two backups."""
        parser.add_argument("which", choices=("data", "keys"))

    def handle(self, *args: Any, **options: Any) -> None:
        """One line of options."""
        words = [f"--exclude-table-data={table}" for table in key_tables()]
        if options["which"] == "keys":
            words = ["--data-only", *(f"--table={table}" for table in key_tables())]
        self.stdout.write(" ".join(words))
