"""Owning a job: claim with an epoch, a lease kept alive by a thread, and writes that only the owner can make."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import DatabaseError, connection
from django.db.models import DateTimeField, ExpressionWrapper, F, Q, Value
from django.db.models.functions import Coalesce, Greatest, Now

from billing import limits
from modeling.models import Job
from tenants import vault_keys
from tenants.models import Tenant
from tenants.scope import scope

logger = logging.getLogger(__name__)

LEASE = timedelta(seconds=60)
RENEW_SECONDS = 15.0
MAX_ATTEMPTS = 3


class Fenced(Exception):
    """Another owner, or a cancel, took the job: this run must write nothing more and stop."""


@dataclass(frozen=True)
class Lease:
    """Ownership of one job under one epoch."""

    tenant_id: uuid.UUID
    job_id: uuid.UUID
    epoch: int


def claim(tenant_id: uuid.UUID, job_id: uuid.UUID, *, worker: str) -> Lease | None:
    """Take a queued job, or a running one whose lease ran out; None when somebody else has it or the plan has no room.

    The clock is the database's. Epoch and attempts rise with every claim. A job that is to pause is not taken.
    """
    with scope(tenant_id):
        tenant = Tenant.objects.get(pk=tenant_id)
        _one_claim_at_a_time(tenant)
        jobs = Job.objects.of(tenant)
        free = Q(state=Job.State.QUEUED) | Q(state=Job.State.RUNNING, lease_until__lt=Now())
        found = (
            jobs.filter(free, pk=job_id, attempts__lt=MAX_ATTEMPTS, pause_requested=False)
            .select_for_update(skip_locked=True)
            .first()
        )
        if found is None or not _has_room(tenant, found):
            return None
        jobs.filter(pk=job_id, epoch=found.epoch).update(
            state=Job.State.RUNNING,
            epoch=F("epoch") + 1,
            attempts=F("attempts") + 1,
            lease_until=Now() + LEASE,
            started_at=Coalesce("started_at", Now()),
            expected_end_at=after(found.estimated_seconds - found.training_seconds),
            offered_at=None,
            worker=worker,
        )
        return Lease(tenant_id, job_id, found.epoch + 1)


def after(seconds: float) -> ExpressionWrapper[Any]:
    """So many seconds from now (at least one), by the database's clock."""
    wait = Value(timedelta(seconds=max(seconds, 1.0)))
    return ExpressionWrapper(Now() + wait, output_field=DateTimeField())


def _one_claim_at_a_time(tenant: Tenant) -> None:
    """Two workers that claim for one tenant at once would both see room under its cap."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"claim:{tenant.pk}"])


def _has_room(tenant: Tenant, job: Job) -> bool:
    if not limits.is_writable(tenant) or not vault_keys.is_open(tenant):
        return False
    running = Job.objects.of(tenant).filter(state=Job.State.RUNNING).exclude(pk=job.pk).count()
    return running + 1 <= limits.ceiling(tenant, "running_jobs")


def owned(lease: Lease) -> Job:
    """The job, locked until the transaction ends; raises Fenced unless the lease still holds it."""
    jobs = Job.objects.of(lease.tenant_id)
    job = jobs.select_for_update().filter(pk=lease.job_id, epoch=lease.epoch, state=Job.State.RUNNING).first()
    if job is None:
        raise Fenced(f"epoch {lease.epoch} no longer owns the job")
    return job


def update(lease: Lease, **changes: Any) -> None:
    """Write columns of the job `WHERE epoch = mine`; raises Fenced when no row matched."""
    jobs = Job.objects.of(lease.tenant_id).filter(pk=lease.job_id, epoch=lease.epoch, state=Job.State.RUNNING)
    if not jobs.update(**changes):
        raise Fenced(f"epoch {lease.epoch} no longer owns the job")


def release(lease: Lease, *, state: str = Job.State.QUEUED, seconds: float = 0.0) -> None:
    """Leave the job in good order, queued or paused: the attempt does not count, and its seconds are metered."""
    with scope(lease.tenant_id):
        update(
            lease, state=state, lease_until=None, worker="", pause_requested=False, expected_end_at=None,
            attempts=Greatest(F("attempts") - 1, 0), training_seconds=F("training_seconds") + seconds,
        )  # fmt: skip


def drop(lease: Lease) -> None:
    """Let the lease end now after an error, so that the next attempt need not wait for it; the attempt counts."""
    with scope(lease.tenant_id):
        jobs = Job.objects.of(lease.tenant_id)
        jobs.filter(pk=lease.job_id, epoch=lease.epoch, state=Job.State.RUNNING).update(
            state=Job.State.QUEUED, lease_until=None, worker="", expected_end_at=None
        )


def renew(lease: Lease) -> bool:
    """Move the lease's end to a minute from now, by the database's clock; False when it is somebody else's."""
    with scope(lease.tenant_id):
        jobs = Job.objects.of(lease.tenant_id)
        mine = jobs.filter(pk=lease.job_id, epoch=lease.epoch, state=Job.State.RUNNING)
        return bool(mine.update(lease_until=Now() + LEASE))


@contextmanager
def kept(lease: Lease, *, every: float = RENEW_SECONDS) -> Iterator[threading.Event]:
    """Renew the lease from a thread with a connection of its own; the event is set once the lease is lost."""
    over, lost = threading.Event(), threading.Event()
    keeper = threading.Thread(target=_keep, args=(lease, over, lost, every), name="lease", daemon=True)
    keeper.start()
    try:
        yield lost
    finally:
        over.set()
        keeper.join()


def _keep(lease: Lease, over: threading.Event, lost: threading.Event, every: float) -> None:
    try:
        while not over.wait(every):
            try:
                if not renew(lease):
                    lost.set()
                    return
            except DatabaseError as error:
                # The next try may work; if none does, the lease runs out and the fence stops this run.
                logger.warning("lease of %s not renewed: %s", lease.job_id, type(error).__name__)
                connection.close()
    finally:
        connection.close()
