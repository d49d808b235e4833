"""Tasks of dataset versions: make one, compare two, and send again the hints for versions that nobody makes."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from celery import Task, shared_task
from django.db.models import Q
from django.utils import timezone

from modeling.actions import version_diffs, version_making
from modeling.models import VersionChange
from saas.lib.background import enqueue
from tenants import turns
from tenants.scope import scope
from tenants.turns import Kind

HINTS_AT_ONCE = 200
WAIT_SECONDS = 3.0


@shared_task(name="modeling.make_version")
def make_version(*, tenant_id: str, change_id: str) -> None:
    """Make the version that a change asks for, a large one in its turn; nothing happens when somebody else does."""
    with scope(tenant_id):
        changes = VersionChange.objects.of(tenant_id).filter(pk=change_id)
        sizes = changes.values_list("base__segments__size_bytes", "file__size_bytes").first() or ()
    if sum(size or 0 for size in sizes) <= turns.SMALL_BYTES:
        version_making.make(tenant_id, change_id)
    else:
        turns.take("version", tenant_id, change_id)


@shared_task(name="modeling.compare_versions", bind=True, max_retries=None)
def compare_versions(self: Task[Any, Any], *, tenant_id: str, diff_id: str) -> None:
    """Work out how two versions differ; nobody sweeps these, so one that has to wait asks again."""
    if turns.take("comparison", tenant_id, diff_id) is None:
        raise self.retry(countdown=WAIT_SECONDS)


@shared_task(name="modeling.sweep_versions")
def sweep_versions() -> None:
    """The rows are the truth: hint again at every open change that nobody holds."""
    for tenant_id, change_id, _since in _waiting():
        enqueue("modeling.make_version", tenant_id=tenant_id, change_id=change_id)


def _waiting() -> list[tuple[uuid.UUID, uuid.UUID, datetime]]:
    free = Q(lease_until=None) | Q(lease_until__lt=timezone.now())
    waiting = VersionChange.objects.everywhere().filter(free, state__in=VersionChange.OPEN).order_by("id")
    return list(waiting.values_list("tenant_id", "pk", "created_at")[:HINTS_AT_ONCE])


turns.register(
    "version",
    Kind(
        "modeling.make_version",
        "change_id",
        lambda piece: version_making.make(piece.tenant_id, piece.id),
        _waiting,
    ),
)
turns.register(
    "comparison",
    Kind(
        "modeling.compare_versions",
        "diff_id",
        lambda piece: version_diffs.work_out(piece.tenant_id, piece.id),
    ),
)
