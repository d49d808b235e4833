"""Destroys again what a restored backup brought back, before anyone is served."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from tenants import tombstones


class Command(BaseCommand):
    """`manage.py restore_check`: replay the tombstones that this database lacks; `--all` after any restore."""

    help = __doc__
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """`--all` trusts nothing that the database says of itself."""
        parser.add_argument("--all", action="store_true", help="apply every tombstone there is, known or not")

    def handle(self, *args: Any, **options: Any) -> None:
        """Replay and say what was done."""
        count = tombstones.replay(everything=options["all"])
        self.stdout.write(f"{count} tombstones were applied to this database.")
