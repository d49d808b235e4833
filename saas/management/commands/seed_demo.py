"""python manage.py seed_demo: the demo's people, tenants, plans and sample data, each made once."""

from __future__ import annotations

from typing import Any

from allauth.account.models import EmailAddress
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from billing.models import Subscription
from modeling.actions.samples import add_samples
from modeling.models import File
from modeling.packs import PACKS
from tenants import actions, audit
from tenants.demo import DEMO_TENANTS, OPERATOR_EMAIL, PASSWORD, DemoTenant
from tenants.models import Tenant, User
from tenants.scope import OPERATOR, scope


def demo_user(email: str, password: str, **fields: Any) -> User:
    """The demo person, with a confirmed address; made once."""
    found = User.objects.filter(email=email).first()
    if found is None:
        found = User.objects.create_user(email, password, **fields)
    EmailAddress.objects.get_or_create(user=found, email=email, defaults={"verified": True, "primary": True})
    return found


def demo_tenant(row: DemoTenant) -> Tenant | None:
    """The demo tenant on the Team plan; made once, and None after somebody deleted it."""
    user = demo_user(row.email, row.password, name=row.tenant)
    known = Tenant.objects.using(OPERATOR).filter(slug=row.slug).first()
    if known is None and actions.is_reserved(row.slug):
        return None
    if known is None:
        known = actions.create_tenant(user, row.tenant, row.pack, slug=row.slug)
    with scope(known.pk):
        tenant = Tenant.objects.get(pk=known.pk)
        Subscription.objects.of(tenant).get_or_create(
            tenant_id=tenant.pk, defaults={"plan": "team", "status": Subscription.Status.ACTIVE}
        )
    return tenant


class Command(BaseCommand):
    """Refuses to run anywhere but on embedded services."""

    help = "Make the demo accounts and their sample data (embedded services only)."

    def handle(self, *args: Any, **options: Any) -> None:
        """Everything that is missing, tenant by tenant."""
        if not (settings.DEMO and settings.EMBEDDED):
            raise CommandError("Demo accounts exist only on embedded services with CLOISTER_DEMO=1.")
        demo_user(OPERATOR_EMAIL, PASSWORD, name="Operator", is_staff=True, is_superuser=True)
        tenants = [(row, demo_tenant(row)) for row in DEMO_TENANTS]
        for row, tenant in tenants:
            if tenant is None:
                continue
            with scope(tenant):
                present = set(File.objects.of(tenant).values_list("name", flat=True))
            missing = [one for one in PACKS[row.pack].samples if one.filename not in present]
            files = add_samples(tenant, audit.SYSTEM, missing)
            self.stdout.write(f"{row.tenant}: {len(files)} files added")
