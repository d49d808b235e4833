"""Tasks of dataset versions: make one, compare two, and send again the hints for versions that nobody makes."""

from __future__ import annotations

from celery import shared_task
from django.db.models import Q
from django.utils import timezone

from modeling.actions import version_diffs, version_making
from modeling.models import VersionChange
from saas.lib.background import enqueue

HINTS_AT_ONCE = 200


@shared_task(name="modeling.make_version")
def make_version(*, tenant_id: str, change_id: str) -> None:
    """Make the version that a change asks for; nothing happens when somebody else does or it has ended."""
    version_making.make(tenant_id, change_id)


@shared_task(name="modeling.compare_versions")
def compare_versions(*, tenant_id: str, diff_id: str) -> None:
    """Work out how two versions differ."""
    version_diffs.work_out(tenant_id, diff_id)


@shared_task(name="modeling.sweep_versions")
def sweep_versions() -> None:
    """The rows are the truth: hint again at every open change that nobody holds."""
    free = Q(lease_until=None) | Q(lease_until__lt=timezone.now())
    waiting = VersionChange.objects.everywhere().filter(free, state__in=VersionChange.OPEN).order_by("id")
    for tenant_id, change_id in waiting.values_list("tenant_id", "pk")[:HINTS_AT_ONCE]:
        enqueue("modeling.make_version", tenant_id=tenant_id, change_id=change_id)
