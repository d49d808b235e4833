"""The waiting line across tenants, read as operator: who waits in which order, and one tenant's places in it."""

from __future__ import annotations

import uuid
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Case, Count, F, IntegerField, Max, Q, QuerySet, Value, When
from django.db.models.functions import Least, Now
from django.utils import timezone

from billing.queries import running_caps
from modeling.models import Job, Worker
from modeling.queries.turns import NEVER, Place, Share, Waiting, places
from tenants.models import Tenant
from tenants.scope import OPERATOR, TenantQuerySet

OFFER = timedelta(seconds=20)  # an offer that nobody took by then is made again
ALIVE = timedelta(seconds=60)
MEMORY = timedelta(days=1)
AGING = timedelta(
    minutes=30
)  # so long a wait counts as one step of priority, so that low is never left for good
HIGHEST = 1
OVERRUN_SECONDS = 10.0  # a run that should have ended is taken to end about now


@dataclass(frozen=True)
class Estimate:
    """What a waiting job is told: its position (1 is next) and when it may start; no other tenant shows."""

    position: int
    starts_at: datetime | None

    @property
    def before(self) -> int:
        """How many jobs are likely to start before it."""
        return self.position - 1

    def body(self) -> dict[str, int | None]:
        """JSON form; the time as unix seconds."""
        at = self.starts_at
        return {"position": self.position, "estimated_start_at": int(at.timestamp()) if at else None}


def slots() -> int:
    """Training workers that live."""
    return Worker.objects.using(OPERATOR).filter(kind="train", heartbeat_at__gt=Now() - ALIVE).count()


def free_jobs(*, max_attempts: int) -> TenantQuerySet[Job]:
    """Jobs of all tenants that a worker may take, each tenant's in its own order (read with `by_turn`)."""
    free = Q(state=Job.State.QUEUED) | Q(state=Job.State.RUNNING, lease_until__lt=Now())
    return Job.objects.everywhere().filter(free, attempts__lt=max_attempts, pause_requested=False)


def by_turn(jobs: TenantQuerySet[Job]) -> QuerySet[Any]:
    """A tenant's own order: priority, raised one step for each AGING of waiting, then age."""
    aged = Case(
        When(created_at__lte=Now() - 2 * AGING, then=Value(2)),
        When(created_at__lte=Now() - AGING, then=Value(1)),
        default=Value(0),
        output_field=IntegerField(),
    )
    return jobs.annotate(turn=Least(F("priority") + aged, Value(HIGHEST))).order_by(
        "-turn", "created_at", "pk"
    )


def busy() -> dict[uuid.UUID, int]:
    """Jobs per tenant that hold a worker or an offer."""
    held = Q(state=Job.State.RUNNING, lease_until__gte=Now()) | Q(
        state=Job.State.QUEUED, offered_at__gt=Now() - OFFER
    )  # fmt: skip
    counts = Job.objects.everywhere().filter(held).values_list("tenant_id").annotate(n=Count("pk"))
    return dict(counts)


def shares_of(oldest: Mapping[uuid.UUID, datetime], running: Mapping[uuid.UUID, int]) -> list[Share]:
    """The standing of each tenant with waiting jobs; `oldest` is when its oldest was made."""
    caps, served = running_caps(oldest.keys()), _last_served(oldest.keys())
    return [
        Share(
            tenant_id,
            cap=caps.get(tenant_id, 0),
            running=running.get(tenant_id, 0),
            last_served=served.get(tenant_id, NEVER),
            oldest=since.timestamp(),
        )
        for tenant_id, since in oldest.items()
    ]


def _last_served(tenant_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, float]:
    """When a job of each tenant last started, within a day: of equal shares, who waited longest comes first."""
    started = Job.objects.everywhere().filter(tenant_id__in=tenant_ids, started_at__gt=Now() - MEMORY)
    latest = started.values_list("tenant_id").annotate(last=Max("started_at"))
    return {tenant_id: last.timestamp() for tenant_id, last in latest}


def estimates_for(tenant: Tenant, *, max_attempts: int) -> dict[uuid.UUID, Estimate]:
    """Position and start of each of this tenant's queued jobs, by job id: the whole line played forward."""
    now = timezone.now()
    queues: dict[uuid.UUID, list[Waiting]] = defaultdict(list)
    oldest: dict[uuid.UUID, datetime] = {}
    waiting = by_turn(free_jobs(max_attempts=max_attempts))
    columns = ("tenant_id", "pk", "created_at", "estimated_seconds", "training_seconds")
    for tenant_id, job_id, since, planned, ran in waiting.values_list(*columns):
        queues[tenant_id].append(Waiting(job_id, max(planned - ran, 1.0)))
        oldest[tenant_id] = min(since, oldest.get(tenant_id, since))
    wanted = [one.job_id for one in queues.get(tenant.pk, [])]
    if not wanted:
        return {}
    ends = _ends(now)
    running = Counter(tenant_id for _seconds, tenant_id in ends)
    shares = [_on_clock(share, now) for share in shares_of(oldest, running)]
    found = places(queues, shares, ends=ends, slots=slots(), wanted=wanted)
    return {job_id: _estimate(place, now) for job_id, place in found.items()}


def _on_clock(share: Share, now: datetime) -> Share:
    """The same standing with its times counted from now."""
    return Share(
        share.tenant_id,
        share.cap,
        share.running,
        share.last_served - now.timestamp(),
        share.oldest - now.timestamp(),
    )


def _ends(now: datetime) -> list[tuple[float, uuid.UUID]]:
    """(seconds from now, tenant) of every job that holds a worker, by its last report."""
    live = Job.objects.everywhere().filter(state=Job.State.RUNNING, lease_until__gte=Now())
    rows = live.values_list("tenant_id", "expected_end_at", "estimated_seconds")
    return [
        (max((end - now).total_seconds(), OVERRUN_SECONDS) if end else planned, tenant_id)
        for tenant_id, end, planned in rows
    ]


def _estimate(place: Place, now: datetime) -> Estimate:
    if place.starts_in is None:
        return Estimate(place.position, None)
    return Estimate(place.position, now + timedelta(seconds=place.starts_in))
