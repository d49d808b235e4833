"""Tasks of quality reports: measure one version, and send again the hints for those that nobody measures."""

from __future__ import annotations

from celery import shared_task
from django.db.models import Q
from django.utils import timezone

from modeling.actions import quality_measuring
from modeling.models import QualityReport
from saas.lib.background import enqueue
from saas.lib.errors import Refusal

HINTS_AT_ONCE = 100


@shared_task(name="modeling.measure_quality", throws=(Refusal,))
def measure_quality(*, tenant_id: str, report_id: str) -> None:
    """Measure one version; nothing happens when somebody else has it or it is done."""
    quality_measuring.measure_report(tenant_id, report_id)


@shared_task(name="modeling.sweep_quality")
def sweep_quality() -> None:
    """The rows are the truth: hint again at every report that is neither held nor done."""
    free = Q(lease_until=None) | Q(lease_until__lt=timezone.now())
    unfinished = (QualityReport.State.WAITING, QualityReport.State.RUNNING)
    waiting = QualityReport.objects.everywhere().filter(free, state__in=unfinished).order_by("id")
    for tenant_id, report_id in waiting.values_list("tenant_id", "pk")[:HINTS_AT_ONCE]:
        enqueue("modeling.measure_quality", tenant_id=tenant_id, report_id=report_id)
