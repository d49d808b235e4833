"""Tasks of the prediction log: what is older than its rules allow is deleted, every hour."""

from __future__ import annotations

from celery import shared_task

from modeling.actions import predictions
from tenants.models import Tenant
from tenants.scope import OPERATOR


@shared_task(name="modeling.forget_predictions")
def forget_predictions() -> int:
    """Delete expired entries of every tenant; returns how many."""
    ids = list(Tenant.objects.using(OPERATOR).values_list("pk", flat=True))
    return sum(predictions.forget_expired(tenant_id) for tenant_id in ids)
