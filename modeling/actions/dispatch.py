"""The dispatcher: which waiting job the next free worker gets, fairly among tenants; looks across them as operator."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from django.db import connections, transaction
from django.db.models import Min, Q
from django.db.models.functions import Now

from modeling.actions.running import MAX_ATTEMPTS
from modeling.models import Job
from modeling.queries import queueing
from modeling.queries.turns import in_turn
from saas.lib.background import enqueue
from tenants.scope import OPERATOR

SLOTS_UNKNOWN = 1  # with no worker known, one hint waits for the first that starts


@dataclass(frozen=True)
class Offer:
    """A job handed to the training queue."""

    tenant_id: uuid.UUID
    job_id: uuid.UUID


def dispatch() -> list[Offer]:
    """Offer waiting jobs to free workers: the tenant with the least running share, and its job whose turn it is.

    The hint is only an offer: a worker takes the job by its own conditional UPDATE.
    """
    offers = []
    with transaction.atomic(using=OPERATOR):
        with connections[OPERATOR].cursor() as cursor:  # one dispatcher at a time, or a slot is offered twice
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended('dispatch', 0))")
        busy = queueing.busy()
        for _slot in range((queueing.slots() or SLOTS_UNKNOWN) - sum(busy.values())):
            job = _next_job(busy)
            if job is None:
                break
            busy[job.tenant_id] = busy.get(job.tenant_id, 0) + 1
            Job.objects.everywhere().filter(pk=job.pk).update(offered_at=Now())
            offers.append(Offer(job.tenant_id, job.pk))
    for offer in offers:
        enqueue("modeling.train_job", tenant_id=offer.tenant_id, job_id=offer.job_id)
    return offers


def _next_job(busy: dict[uuid.UUID, int]) -> Job | None:
    """The next free job of the tenant with the least running share under its plan's cap, locked."""
    unoffered = Q(offered_at=None) | Q(offered_at__lte=Now() - queueing.OFFER)
    jobs = queueing.free_jobs(max_attempts=MAX_ATTEMPTS).filter(unoffered)
    oldest = dict(jobs.values_list("tenant_id").annotate(oldest=Min("created_at")))
    for share in in_turn(queueing.shares_of(oldest, busy)):
        rows = queueing.by_turn(jobs.filter(tenant_id=share.tenant_id)).only(*Job.OPERATOR_COLUMNS)
        first: Job | None = rows.select_for_update(skip_locked=True).first()
        if first is not None:
            return first
    return None
