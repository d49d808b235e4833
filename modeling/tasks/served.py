"""Tasks of what models served: rows older than KEPT_DAYS are deleted every night."""

from __future__ import annotations

from datetime import timedelta

from celery import shared_task
from django.utils import timezone

from modeling.models.served import KEPT_DAYS, ServedMinutes
from tenants.models import Tenant
from tenants.scope import OPERATOR, scope


@shared_task(name="modeling.forget_served")
def forget_served() -> int:
    """Delete every tenant's old rows; returns how many."""
    oldest = timezone.now() - timedelta(days=KEPT_DAYS)
    gone = 0
    for tenant_id in Tenant.objects.using(OPERATOR).values_list("pk", flat=True):
        with scope(tenant_id):
            gone += ServedMinutes.objects.of(tenant_id).filter(at__lt=oldest).delete()[0]
    return gone
