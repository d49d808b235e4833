"""The dispatcher: which waiting job the next free worker gets, fairly among tenants; looks across them as operator."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.db import connections, transaction
from django.db.models import Count, Max, Min, Q
from django.db.models.functions import Now

from billing import limits
from modeling.actions.running import MAX_ATTEMPTS
from modeling.models import Job, Worker
from saas.lib.background import enqueue
from tenants.models import Tenant
from tenants.scope import OPERATOR, scope

OFFER = timedelta(seconds=20)  # an offer that nobody took by then is made again
ALIVE = timedelta(seconds=60)
MEMORY = timedelta(days=1)
NEVER = datetime.min.replace(tzinfo=UTC)
SLOTS_UNKNOWN = 1  # with no worker known, one hint waits for the first that starts


@dataclass(frozen=True)
class Offer:
    """A job handed to the training queue."""

    tenant_id: uuid.UUID
    job_id: uuid.UUID


def dispatch() -> list[Offer]:
    """Offer waiting jobs to free workers: always the oldest job of the tenant with the least running share.

    The hint is only an offer: a worker takes the job by its own conditional UPDATE.
    """
    offers = []
    with transaction.atomic(using=OPERATOR):
        with connections[OPERATOR].cursor() as cursor:  # one dispatcher at a time, or a slot is offered twice
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended('dispatch', 0))")
        busy = _busy()
        for _slot in range(_slots() - sum(busy.values())):
            job = _next_job(busy)
            if job is None:
                break
            busy[job.tenant_id] = busy.get(job.tenant_id, 0) + 1
            Job.objects.everywhere().filter(pk=job.pk).update(offered_at=Now())
            offers.append(Offer(job.tenant_id, job.pk))
    for offer in offers:
        enqueue("modeling.train_job", tenant_id=offer.tenant_id, job_id=offer.job_id)
    return offers


def _slots() -> int:
    alive = Worker.objects.using(OPERATOR).filter(kind="train", heartbeat_at__gt=Now() - ALIVE).count()
    return alive or SLOTS_UNKNOWN


def _busy() -> dict[uuid.UUID, int]:
    """Jobs per tenant that hold a worker or an offer."""
    held = Q(state=Job.State.RUNNING, lease_until__gte=Now()) | Q(
        state=Job.State.QUEUED, offered_at__gt=Now() - OFFER
    )  # fmt: skip
    counts = Job.objects.everywhere().filter(held).values_list("tenant_id").annotate(n=Count("pk"))
    return dict(counts)


def _next_job(busy: dict[uuid.UUID, int]) -> Job | None:
    """The oldest free job of the tenant with the least running share under its plan's cap, locked."""
    free = Q(state=Job.State.QUEUED) | Q(state=Job.State.RUNNING, lease_until__lt=Now())
    free &= Q(offered_at=None) | Q(offered_at__lte=Now() - OFFER)
    jobs = Job.objects.everywhere().filter(free, attempts__lt=MAX_ATTEMPTS)
    served = _last_served()
    ranked = []
    for tenant_id, oldest in jobs.values_list("tenant_id").annotate(oldest=Min("created_at")):
        cap, running = _cap(tenant_id), busy.get(tenant_id, 0)
        if running < cap:
            ranked.append((running / cap, served.get(tenant_id, NEVER), oldest, tenant_id))
    for *_rank, tenant_id in sorted(ranked):
        rows = jobs.filter(tenant_id=tenant_id).order_by("created_at", "pk").only(*Job.OPERATOR_COLUMNS)
        first = rows.select_for_update(skip_locked=True).first()
        if first is not None:
            return first
    return None


def _last_served() -> dict[uuid.UUID, datetime]:
    """When a job of each tenant last started, within a day: of equal shares, who waited longest comes first."""
    started = Job.objects.everywhere().filter(started_at__gt=Now() - MEMORY)
    return dict(started.values_list("tenant_id").annotate(last=Max("started_at")))


def _cap(tenant_id: uuid.UUID) -> int:
    """How many jobs the tenant may run at once; 0 while it is suspended or read-only."""
    with scope(tenant_id):
        tenant = Tenant.objects.get(pk=tenant_id)
        return limits.ceiling(tenant, "running_jobs") if limits.is_writable(tenant) else 0
