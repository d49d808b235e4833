"""What the console's front page shows: workers and leases, queue, tenants, object store, this month's usage."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from asgiref.sync import async_to_sync
from django.db.models import Count, Max, Min, Q, Sum
from django.utils import timezone

from billing.models import UsageEvent
from modeling.models import Job, Worker
from modeling.serving.engines import Engines
from tenants.models import StoreSweep, Tenant, TenantErasure
from tenants.scope import OPERATOR

QUIET_AFTER = timedelta(seconds=60)
ENGINE_SECONDS = 1.0


def now() -> dict[str, Any]:
    """Template context, read through the operator role."""
    moment = timezone.now()
    jobs = Job.objects.everywhere()
    running = {job.pk: job for job in _running()}
    workers = [
        {
            "row": worker,
            "is_quiet": worker.heartbeat_at < moment - QUIET_AFTER,
            "job": running.get(worker.job_id) if worker.job_id else None,
        }
        for worker in Worker.objects.using(OPERATOR).order_by("kind", "name")
    ]
    month = moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    usage = UsageEvent.objects.everywhere().filter(at__gte=month).values("kind").order_by("kind")
    return {
        "moment": moment,
        "engines": async_to_sync(_engines)(),
        "workers": workers,
        "expired": [job for job in running.values() if job.lease_until and job.lease_until < moment],
        "queue": jobs.filter(state__in=Job.WAITING).aggregate(waiting=Count("id"), oldest=Min("created_at")),
        "waiting_by_tenant": list(
            jobs.filter(state__in=[*Job.WAITING, Job.State.RUNNING])
            .values("tenant__slug")
            .annotate(
                waiting=Count("id", filter=Q(state__in=Job.WAITING)),
                running=Count("id", filter=Q(state=Job.State.RUNNING)),
                latest=Max("created_at"),
            )
            .order_by("-waiting", "tenant__slug")[:20]
        ),
        "tenants": Tenant.objects.using(OPERATOR).aggregate(
            active=Count("id", filter=Q(state=Tenant.State.ACTIVE)),
            suspended=Count("id", filter=Q(state=Tenant.State.SUSPENDED)),
            erased=Count("id", filter=Q(state=Tenant.State.ERASED)),
        ),
        "erasures": list(
            TenantErasure.objects.everywhere()
            .filter(Q(state__in=("requested", "running")) | Q(state="erased", trouble__gt=""))
            .only(*TenantErasure.OPERATOR_COLUMNS, "tenant__slug")
            .select_related("tenant")
            .order_by("due_at")[:20]
        ),
        "suspended": list(
            Tenant.objects.using(OPERATOR).filter(state=Tenant.State.SUSPENDED).order_by("slug")[:20]
        ),
        "store": StoreSweep.objects.everywhere().aggregate(
            at=Max("at"), objects=Sum("objects_seen"), removed=Sum("removed")
        ),
        "store_amiss": list(
            StoreSweep.objects.everywhere()
            .filter(Q(missing__gt=0) | Q(left__gt=0))
            .select_related("tenant")
            .order_by("-missing", "-left")[:20]
        ),
        "usage": [
            (UsageEvent.Kind(row["kind"]).label, row["total"])
            for row in usage.annotate(total=Sum("quantity"))
        ],
    }


async def _engines() -> list[dict[str, Any]]:
    """Every engine as it answers now: its bases with their state, what computes them, and what waits."""
    engines = Engines.from_settings()
    try:
        found = await engines.snapshots(ENGINE_SECONDS)
    finally:
        await engines.close()
    return [
        {
            "name": name,
            "is_up": snapshot is not None,
            "bases": [
                {"name": base, "state": state, **snapshot["bases"].get(base, {})}
                for base, state in snapshot["states"].items()
            ]
            if snapshot
            else [],
        }
        for name, snapshot in found.items()
    ]


def _running() -> list[Job]:
    columns = Job.OPERATOR_COLUMNS
    rows = Job.objects.everywhere().filter(state=Job.State.RUNNING).only(*columns, "tenant__slug")
    return list(rows.select_related("tenant").order_by("started_at"))
