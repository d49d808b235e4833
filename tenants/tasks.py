"""Background work of tenants: the nightly look at the object store, rotations of keys, and keys of tenants' own."""

from __future__ import annotations

import logging
import uuid
from datetime import timedelta
from typing import Final

from celery import shared_task
from django.utils import timezone

from saas.lib import draining
from saas.lib.background import enqueue
from tenants import own_keys, rotation, sweeping, tombstones
from tenants.models import KeyRotation, Tenant
from tenants.scope import OPERATOR

log = logging.getLogger("cloister.sweep")
IDLE: Final = timedelta(seconds=30)  # a rotation that nobody moved for so long is taken up again


@shared_task(name="tenants.sweep_vault")
def sweep_vault() -> int:
    """Sweep every tenant's part of the object store and what strangers left; returns how many things were removed."""
    tombstones.export_missing()
    removed = 0
    for tenant_id in list(Tenant.objects.using(OPERATOR).values_list("pk", flat=True)):
        try:
            removed += sweeping.sweep(tenant_id).removed
        except OSError as error:  # one tenant's trouble keeps no other from its turn
            log.error("the objects of tenant %s could not be swept: %s", tenant_id, error)
    return removed + sweeping.sweep_strangers()


@shared_task(name="tenants.rotate_keys")
def rotate_keys(*, tenant_id: str, rotation_id: str) -> None:
    """Go on with a rotation; nothing happens when it is done or another worker has it."""
    rotation.run(uuid.UUID(tenant_id), uuid.UUID(rotation_id), is_stopping=draining.is_asked)


@shared_task(name="tenants.watch_keys")
def watch_keys() -> None:
    """Ask the tenants' own keys whether they still open, and send again the hints of rotations that stand still."""
    own_keys.watch()
    still = KeyRotation.objects.everywhere().filter(state=KeyRotation.State.RUNNING)
    for tenant_id, pk in still.filter(moved_at__lt=timezone.now() - IDLE).values_list("tenant_id", "pk"):
        enqueue("tenants.rotate_keys", tenant_id=tenant_id, rotation_id=pk)
