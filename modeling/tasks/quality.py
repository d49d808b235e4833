"""Tasks of quality reports: measure one version, and send again the hints for those that nobody measures."""

from __future__ import annotations

import uuid
from datetime import datetime

from celery import shared_task
from django.db.models import Q
from django.utils import timezone

from modeling.actions import quality_measuring
from modeling.models import QualityReport
from saas.lib.background import enqueue
from saas.lib.errors import Refusal
from tenants import turns
from tenants.scope import scope
from tenants.turns import Kind

HINTS_AT_ONCE = 100


@shared_task(name="modeling.measure_quality", throws=(Refusal,))
def measure_quality(*, tenant_id: str, report_id: str) -> None:
    """Measure one version, a large one in its turn; nothing happens when somebody has it or it is done."""
    with scope(tenant_id):
        reports = QualityReport.objects.of(tenant_id).filter(pk=report_id)
        size = reports.values_list("version__segments__size_bytes", flat=True).first()
    if (size or 0) <= turns.SMALL_BYTES:
        quality_measuring.measure_report(tenant_id, report_id)
    else:
        turns.take("quality", tenant_id, report_id)


@shared_task(name="modeling.sweep_quality")
def sweep_quality() -> None:
    """The rows are the truth: hint again at every report that is neither held nor done."""
    for tenant_id, report_id, _since in _waiting():
        enqueue("modeling.measure_quality", tenant_id=tenant_id, report_id=report_id)


def _waiting() -> list[tuple[uuid.UUID, uuid.UUID, datetime]]:
    free = Q(lease_until=None) | Q(lease_until__lt=timezone.now())
    unfinished = (QualityReport.State.WAITING, QualityReport.State.RUNNING)
    waiting = QualityReport.objects.everywhere().filter(free, state__in=unfinished).order_by("id")
    return list(waiting.values_list("tenant_id", "pk", "asked_at")[:HINTS_AT_ONCE])


turns.register(
    "quality",
    Kind(
        "modeling.measure_quality",
        "report_id",
        lambda piece: quality_measuring.measure_report(piece.tenant_id, piece.id),
        _waiting,
    ),
)
