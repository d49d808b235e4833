"""Tasks of tenants that leave: what is due is begun, what was interrupted or refused goes on."""

from __future__ import annotations

import uuid

from celery import shared_task

from modeling.actions import tenant_erasing
from saas.lib.background import enqueue


@shared_task(name="modeling.erase_tenants")
def erase_tenants() -> None:
    """Erase again what a restore revived, and send a hint for every tenant whose erasure is due or not done."""
    tenant_erasing.erase_revived()
    for tenant_id in tenant_erasing.waiting():
        enqueue("modeling.erase_tenant", tenant_id=tenant_id)


@shared_task(name="modeling.erase_tenant")
def erase_tenant(*, tenant_id: str) -> None:
    """Go on with one tenant's erasure; every step can be repeated."""
    tenant_erasing.run(uuid.UUID(tenant_id))
