"""Background work of tenants: the nightly look at the object store, rotations of keys, and keys of tenants' own."""

from __future__ import annotations

import logging
import uuid
from datetime import datetime, timedelta
from typing import Final

from celery import shared_task
from django.utils import timezone

from saas.lib import draining
from saas.lib.background import enqueue
from tenants import own_keys, rotation, sweeping, tombstones, turns
from tenants.models import KeyRotation, Tenant
from tenants.scope import OPERATOR
from tenants.turns import Kind

log = logging.getLogger("cloister.sweep")
IDLE: Final = timedelta(seconds=30)  # a rotation that nobody moved for so long is taken up again


@shared_task(name="tenants.sweep_vault")
def sweep_vault() -> int:
    """Sweep every tenant's part of the object store and what strangers left; returns how many things were removed."""
    tombstones.export_missing()
    removed = 0
    living = Tenant.objects.using(OPERATOR).exclude(state=Tenant.State.ERASED)
    for tenant_id in list(living.values_list("pk", flat=True)):
        try:
            removed += sweeping.sweep(tenant_id).removed
        except OSError as error:  # one tenant's trouble keeps no other from its turn
            log.error("the objects of tenant %s could not be swept: %s", tenant_id, error)
    return removed + sweeping.sweep_strangers()


@shared_task(name="tenants.rotate_keys")
def rotate_keys(*, tenant_id: str, rotation_id: str) -> None:
    """Go on with a rotation in its turn; nothing happens when it is done or another worker has it."""
    turns.take("rotation", tenant_id, rotation_id)


@shared_task(name="tenants.watch_keys")
def watch_keys() -> None:
    """Ask the tenants' own keys whether they still open, and send again the hints of rotations that stand still."""
    own_keys.watch()
    for tenant_id, pk, _since in _waiting():
        enqueue("tenants.rotate_keys", tenant_id=tenant_id, rotation_id=pk)


def _waiting() -> list[tuple[uuid.UUID, uuid.UUID, datetime]]:
    still = KeyRotation.objects.everywhere().filter(state=KeyRotation.State.RUNNING)
    return list(
        still.filter(moved_at__lt=timezone.now() - IDLE).values_list("tenant_id", "pk", "moved_at")[:200]
    )


turns.register(
    "rotation",
    Kind(
        "tenants.rotate_keys",
        "rotation_id",
        lambda piece: rotation.run(piece.tenant_id, piece.id, is_stopping=draining.is_asked),
        _waiting,
    ),
)
