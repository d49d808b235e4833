"""Pause and resume: a job leaves its worker with its place and its reservation kept, and comes back to the queue."""

from __future__ import annotations

import uuid

from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from billing import limits
from modeling.actions import endings, events, moves, privacy
from modeling.actions.jobs import locked
from modeling.actions.moves import PAUSING, Move
from modeling.actions.telling import public
from modeling.models import Job, JobEvent
from saas.lib.background import enqueue
from tenants import audit
from tenants.audit import Actor
from tenants.models import Tenant

State = Job.State


def pause(tenant: Tenant, actor: Actor, job: Job) -> Job:
    """Pause: at once while no worker has the job, otherwise after its current block. Raises Conflict (409)."""
    with locked(tenant, job) as now:
        moves.require(now, Move.PAUSE)
        if not pause_unowned(tenant, job.pk):
            Job.objects.of(tenant).filter(pk=job.pk).update(pause_requested=True)
            message = _("Pausing: the run stops after its current block and keeps its place.")
            events.announce(job, JobEvent.Kind.STATE, message, data=public(state=now.state, is_pausing=True))
        audit.record(tenant, actor, "job.pause", job)
    job.refresh_from_db()
    return job


def pause_unowned(tenant: Tenant, job_id: uuid.UUID | str) -> bool:
    """Pause a job that no worker owns (queued, or its lease ran out); False when one does.

    The epoch rises, so a worker that lost its lease writes nothing more.
    """
    free = Q(state=State.QUEUED) | Q(state=State.RUNNING, lease_until__lt=Now())
    found = Job.objects.of(tenant).select_for_update().filter(free, pk=job_id).first()
    if found is None:
        return False
    Job.objects.of(tenant).filter(pk=found.pk).update(
        state=State.PAUSED, epoch=F("epoch") + 1, lease_until=None, worker="", offered_at=None,
        pause_requested=False, expected_end_at=None, epsilon=privacy.cost_of_spent(found).epsilon,
    )  # fmt: skip
    events.announce(found, JobEvent.Kind.STATE, endings.paused_words(), data=public(state=State.PAUSED))
    return True


def resume(tenant: Tenant, actor: Actor, job: Job) -> Job:
    """Back into the queue with checkpoint and ledger as they were; a job still pausing goes on. Raises Conflict (409).

    Refused like a start while the tenant may not train (limits of the plan, an overdue payment).
    """
    limits.require_writable(tenant)
    with locked(tenant, job) as now:
        to = moves.require(now, Move.RESUME)
        if moves.standing(now) == PAUSING:
            Job.objects.of(tenant).filter(pk=job.pk).update(pause_requested=False)
            message = _("The pause was withdrawn: the run goes on.")
        else:
            waiting = Job.objects.of(tenant).filter(state__in=Job.WAITING).count()
            limits.require(tenant, "queued_jobs", waiting + 1)
            limits.require(tenant, "training_seconds", 0)
            Job.objects.of(tenant).filter(pk=job.pk).update(state=to, offered_at=None)
            message = _("Resumed: the job waits for a worker and goes on where it stopped.")
            enqueue("modeling.dispatch")
        events.announce(job, JobEvent.Kind.STATE, message, data=public(state=to))
        audit.record(tenant, actor, "job.resume", job)
    job.refresh_from_db()
    return job
