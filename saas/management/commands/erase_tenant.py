"""Has a tenant erased in an owner's name: after the days of grace, or at once."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from modeling.actions import tenant_erasing, tenant_erasure
from saas.lib.errors import Refusal
from tenants.audit import Actor
from tenants.models import Tenant, TenantErasure
from tenants.scope import OPERATOR, scope

State = TenantErasure.State


class Command(BaseCommand):
    """`manage.py erase_tenant --slug SLUG --reason … [--now] [--confirm SLUG]`."""

    help = __doc__

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Which, why, when; `--confirm` is for scripts, others are asked to type the slug."""
        parser.add_argument("--slug", required=True)
        parser.add_argument("--reason", required=True, help="kept in its audit log, and mailed to its owners")
        parser.add_argument(
            "--now", action="store_true", help="no days of grace: it is gone when this returns"
        )
        parser.add_argument("--confirm", metavar="SLUG", help="the slug once more, instead of a question")

    def handle(self, *args: Any, **options: Any) -> None:
        """Ask, and with --now erase in this process."""
        tenant = Tenant.objects.using(OPERATOR).filter(slug=options["slug"]).first()
        if tenant is None:
            raise CommandError(f"There is no tenant {options['slug']}.")
        when = "now" if options["now"] else "after the days of grace"
        typed = options["confirm"] or input(
            f"All data of {tenant.name} goes {when}, for good. Type {tenant.slug}: "
        )
        if typed != tenant.slug:
            raise CommandError("This is not its slug. Nothing was changed.")
        try:
            self._ask(tenant, options["reason"], at_once=options["now"])
        except Refusal as refusal:
            raise CommandError(str(refusal.message)) from None
        if not options["now"]:
            self.stdout.write(f"{tenant.slug} will be deleted on {tenant.erase_at:%Y-%m-%d %H:%M} UTC.")
            return
        is_done = tenant_erasing.run(tenant.pk)
        with scope(tenant):
            row = TenantErasure.objects.of(tenant).exclude(state=State.WITHDRAWN).latest("id")
        if row.shredded_at is None:
            raise CommandError(row.trouble or "It has not begun.")
        self.stdout.write(
            "Deleted." if is_done else f"Deleted. What is left is tried again by itself: {row.trouble}"
        )

    def _ask(self, tenant: Tenant, reason: str, *, at_once: bool) -> None:
        """A new request, or with `at_once` the earlier end of one that waits or goes on."""
        with scope(tenant):
            rows = TenantErasure.objects.of(tenant)
            is_asked = at_once and (
                tenant.state == Tenant.State.ERASED or rows.filter(state=State.REQUESTED).exists()
            )
            if is_asked:
                rows.filter(state=State.REQUESTED).update(due_at=timezone.now())
        if not is_asked:
            actor = Actor("operator", "erase_tenant", "An operator")
            tenant_erasure.request(tenant, actor, reason=reason, at_once=at_once)
