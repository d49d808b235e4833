"""Tasks of retention: every hour, what is past its time by a tenant's rules is deleted."""

from __future__ import annotations

from celery import shared_task

from modeling.actions import retention
from tenants.models import Tenant
from tenants.scope import OPERATOR


@shared_task(name="modeling.apply_retention")
def apply_retention() -> int:
    """Apply every tenant's rules; returns how many things were deleted."""
    ids = list(Tenant.objects.using(OPERATOR).values_list("pk", flat=True))
    return sum(retention.apply_rules(tenant_id) for tenant_id in ids)
