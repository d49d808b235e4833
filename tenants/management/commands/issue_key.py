"""python manage.py issue_key --tenant SLUG --scopes all: print a fresh API key for scripts."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from saas.lib.errors import Refusal
from tenants import actions
from tenants.audit import Actor
from tenants.models import Tenant
from tenants.scope import OPERATOR, scope


class Command(BaseCommand):
    """Prints the key alone on standard output, so that a script can take it."""

    help = "Make an API key of a tenant and print it."

    def add_arguments(self, parser: CommandParser) -> None:
        """--tenant, --scopes, --name."""
        parser.add_argument("--tenant", required=True, help="the tenant's slug")
        parser.add_argument(
            "--scopes",
            default="all",
            help="comma-separated: files,train,predict,models,privacy,usage,predictions,all",
        )
        parser.add_argument("--name", default="command line", help="what the key is for")

    def handle(self, *args: Any, **options: Any) -> None:
        """Find the tenant through the operator role, then make the key in its scope."""
        tenant = Tenant.objects.using(OPERATOR).filter(slug=options["tenant"]).first()
        if tenant is None:
            raise CommandError(f"There is no tenant {options['tenant']}.")
        names = [name.strip() for name in options["scopes"].split(",") if name.strip()]
        actor = Actor("system", "issue_key", "manage.py issue_key")
        try:
            with scope(tenant.pk):
                owned = Tenant.objects.get(pk=tenant.pk)
                _key, secret = actions.issue_key(owned, options["name"], names, actor)
        except Refusal as refusal:
            raise CommandError(refusal.message) from None
        self.stdout.write(secret)
