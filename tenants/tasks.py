"""Background work of tenants: the nightly sweep of files that no object owns."""

from __future__ import annotations

from celery import shared_task

from tenants import vault
from tenants.models import Tenant
from tenants.scope import OPERATOR


@shared_task(name="tenants.sweep_vault")
def sweep_vault() -> int:
    """Remove orphaned ciphertext of every tenant; returns how many files."""
    ids = list(Tenant.objects.using(OPERATOR).values_list("pk", flat=True))
    return sum(vault.sweep(tenant_id) for tenant_id in ids)
