"""Tasks of data: inspect one file, and send again the hints for files that nobody inspects."""

from __future__ import annotations

import uuid
from datetime import datetime

from celery import shared_task
from django.db.models import Q
from django.utils import timezone

from modeling.actions import inspection, rereading
from modeling.models import File, Inspection
from saas.lib.background import enqueue
from saas.lib.errors import Refusal
from tenants import turns
from tenants.scope import scope
from tenants.turns import Kind

HINTS_AT_ONCE = 200


@shared_task(name="modeling.inspect_file", throws=(Refusal,))
def inspect_file(*, tenant_id: str, file_id: str) -> None:
    """Inspect an uploaded file, a large one in its turn; nothing happens when somebody has it or it is done."""
    with scope(tenant_id):
        file = File.objects.of(tenant_id).filter(pk=file_id).first()
    if file is None or file.size_bytes <= turns.SMALL_BYTES:
        inspection.inspect_file(tenant_id, file_id)
    else:
        turns.take("inspection", tenant_id, file_id)


@shared_task(name="modeling.sweep_inspections")
def sweep_inspections() -> None:
    """The rows are the truth: hint again at every inspection that is neither held nor done."""
    for tenant_id, file_id, _since in _waiting():
        enqueue("modeling.inspect_file", tenant_id=tenant_id, file_id=file_id)


def _waiting() -> list[tuple[uuid.UUID, uuid.UUID, datetime]]:
    free = Q(lease_until=None) | Q(lease_until__lt=timezone.now())
    waiting = Inspection.objects.everywhere().filter(free, done_at=None).order_by("id")
    return list(waiting.values_list("tenant_id", "file_id", "created_at")[:HINTS_AT_ONCE])


turns.register(
    "inspection",
    Kind(
        "modeling.inspect_file",
        "file_id",
        lambda piece: inspection.inspect_file(piece.tenant_id, piece.id),
        _waiting,
    ),
)


@shared_task(name="modeling.sweep_kept_streams")
def sweep_kept_streams() -> None:
    """Destroy the sealed streams of refused files that nobody had read in another way within a day."""
    late = Inspection.objects.everywhere().filter(kept_until__lte=timezone.now()).order_by("id")
    for tenant_id, file_id in late.values_list("tenant_id", "file_id")[:HINTS_AT_ONCE]:
        rereading.sweep_kept(tenant_id, file_id)
