"""Rotates keys: the root key of the installation, one tenant's key, or the data keys of a tenant's objects."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from saas.lib.errors import Refusal
from tenants import audit, resealing, root_rotation, rotation
from tenants.models import KeyRotation, Tenant
from tenants.scope import OPERATOR, scope


class Command(BaseCommand):
    """`--root`, `--tenant SLUG`, or `--data KIND --tenant SLUG`; a rotation that was killed goes on by itself."""

    help = "Rotate the root key (--root), a tenant's key (--tenant SLUG) or its data keys (--tenant SLUG --data KIND)."

    def add_arguments(self, parser: CommandParser) -> None:
        """The three kinds."""
        parser.add_argument(
            "--root", action="store_true", help="the root key, of which a new version is made"
        )
        parser.add_argument(
            "--rewrap-only", action="store_true",
            help="with --root: no new version; go on after a kill, or move to another ROOT_KEY",
        )  # fmt: skip
        parser.add_argument("--tenant", metavar="SLUG", help="the key of this tenant")
        parser.add_argument(
            "--data", metavar="KIND", help="with --tenant: data keys of such objects; all: of every kind"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run in this process, to the end."""
        if options["root"] == bool(options["tenant"]):
            raise CommandError("Say --root or --tenant SLUG.")
        try:
            if options["root"]:
                self._root(is_new=not options["rewrap_only"])
            else:
                self._tenant(options["tenant"], options["data"] or "")
        except Refusal as refusal:
            raise CommandError(str(refusal.message)) from None

    def _root(self, *, is_new: bool) -> None:
        done = root_rotation.Done(0, 0)
        for done in root_rotation.rotate(is_new=is_new):
            self.stdout.write(f"{done.tenants} tenants, {done.keys} keys wrapped again", ending="\r")
        self.stdout.write(f"{done.tenants} tenants, {done.keys} keys wrapped again: the root key is rotated.")

    def _tenant(self, slug: str, data: str) -> None:
        tenant = Tenant.objects.using(OPERATOR).filter(slug=slug).first()
        if tenant is None:
            raise CommandError(f"There is no tenant {slug}.")
        operator = audit.Actor("operator", "rotate_keys", "rotate_keys")
        with scope(tenant):
            running = KeyRotation.objects.of(tenant).filter(state=KeyRotation.State.RUNNING).first()
            if running is None and data:
                running = resealing.start(tenant, operator, kind="" if data == "all" else data)
            elif running is None:
                running = rotation.start(tenant, operator)
        if not rotation.run(tenant.pk, running.pk, is_stopping=lambda: False):
            self.stdout.write("The workers go on with it; see the tenant's page.")
            return
        with scope(tenant):
            done = KeyRotation.objects.of(tenant).get(pk=running.pk)
        self.stdout.write(f"{done.done} keys done. {done.trouble}".strip())
