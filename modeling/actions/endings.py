"""How an owned job ends: succeeded, cancelled, failed, or given back. Each is one fenced transaction."""

from __future__ import annotations

import hashlib
from typing import Any

from django.db.models import F
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from billing.actions import record_usage
from modeling.actions import endpoints, events, paces, privacy, running, versions
from modeling.actions.causes import Cause
from modeling.actions.running import Fenced, Lease
from modeling.actions.telling import NOTHING, Told, public
from modeling.core import artifacts
from modeling.core.types import CoreError, Trained
from modeling.models import Job, JobEvent, ModelVersion, PrivacyEntry
from saas.lib.errors import Refusal
from tenants import audit, vault
from tenants.models import Tenant
from tenants.scope import scope

State, Kind = Job.State, JobEvent.Kind


def _cost_so_far(lease: Lease) -> privacy.Cost:
    """Epsilon of what this job was charged; worked out before the transaction that ends it."""
    with scope(lease.tenant_id):
        job = running.owned(lease)
    return privacy.cost_of_spent(job)


def succeed(
    lease: Lease, tenant: Tenant, trained: Trained, *, seconds: float, cpu_seconds: float | None = None
) -> ModelVersion:
    """Store the artefact, then version, card, receipt, endpoint and bill, and settle the ledger: all or nothing."""
    cost = _cost_so_far(lease)
    content = artifacts.dump(trained.tensors, trained.config)
    sealed = vault.put(tenant, "artifact", content)
    try:
        with scope(tenant):
            job = running.owned(lease)
            privacy.close(tenant, job, kind=PrivacyEntry.Kind.SETTLED, cost=cost)
            digest = hashlib.sha256(content).hexdigest()
            made = versions.Made(trained, cost, sealed, digest, job.training_seconds + seconds, cpu_seconds)
            version = versions.create_version(tenant, job, made)
            name = endpoints.free_name(tenant, endpoints.default_name(job), job.task)
            endpoint = endpoints.point(tenant, audit.SYSTEM, name, version)
            audit.record(tenant, audit.SYSTEM, "model.created", version, job=job.public_id)
            total = job.training_seconds + seconds
            record_usage(tenant, "training_seconds", total, job.public_id)
            paces.learn(job, seconds)
            message = _("The model %(name)s is ready and answers as %(endpoint)s.") % {
                "name": version.name, "endpoint": endpoint.name,
            }  # fmt: skip
            facts = public(model=version.name, endpoint=endpoint.name, epsilon=cost.epsilon)
            _end(
                lease,
                job,
                State.SUCCEEDED,
                message,
                seconds,
                epsilon=cost.epsilon,
                model_version=version,
                facts=facts,
            )
    except Fenced:
        vault.destroy(sealed)
        raise
    return version


def cancel(lease: Lease, *, seconds: float) -> None:
    """End at the tenant's wish: what was charged stays charged, the rest is free again, the time is billed."""
    cost = _cost_so_far(lease)
    with scope(lease.tenant_id):
        job = running.owned(lease)
        privacy.close(job.tenant, job, kind=PrivacyEntry.Kind.RELEASED, cost=cost)
        record_usage(job.tenant, "training_seconds", job.training_seconds + seconds, job.public_id)
        _end(lease, job, State.CANCELLED, _("The job was cancelled."), seconds, epsilon=cost.epsilon)


def fail(lease: Lease, error: CoreError | Refusal, *, seconds: float) -> None:
    """End with a cause that the user can act on; failures are not billed."""
    cost = _cost_so_far(lease)
    with scope(lease.tenant_id):
        job = running.owned(lease)
        privacy.close(job.tenant, job, kind=PrivacyEntry.Kind.FAILED, cost=cost)
        cause = {"message": str(error.message), "code": error.code, "param": getattr(error, "param", None)}
        _end(lease, job, State.FAILED, str(error.message), seconds, epsilon=cost.epsilon, error=cause)


def pause(lease: Lease, *, seconds: float) -> None:
    """Leave the worker at the tenant's wish: checkpoint, reservation and what was charged stay as they are."""
    cost = _cost_so_far(lease)
    with scope(lease.tenant_id):
        running.update(lease, epsilon=cost.epsilon)
        events.announce(
            running.owned(lease), Kind.STATE, paused_words(), lease=lease, data=public(state=State.PAUSED)
        )
        running.release(lease, state=State.PAUSED, seconds=seconds)


def paused_words() -> str:
    """What a job says when it has paused."""
    return _("Paused: its place and its privacy reservation are kept until it is resumed or cancelled.")


def give_back(lease: Lease, *, seconds: float, why: str = "") -> None:
    """Return the job because this worker stops (or of another reason): to the queue, or paused where asked for."""
    with scope(lease.tenant_id):
        job = running.owned(lease)
        if job.pause_requested:
            pause(lease, seconds=seconds)
            return
        message = why or _("This worker is stopping; the job goes on with the next one.")
        events.announce(job, Kind.STATE, message, lease=lease, data=public(state=State.QUEUED))
        running.release(lease, seconds=seconds)


def lose(lease: Lease, cause: Cause) -> None:
    """Drop the job after an error that is no answer: the attempt counts, and says what happened to it."""
    with scope(lease.tenant_id):
        job = running.owned(lease)
        announce_loss(job, cause, lease=lease)
        running.drop(lease)


def announce_loss(job: Job, cause: Cause, *, lease: Lease | None = None) -> None:
    """Write down how the job's newest attempt was lost; the words are read again when the job is given up."""
    message = _("Attempt %(n)s was lost: %(what)s.") % {"n": job.attempts, "what": cause.words}
    facts = public(state=State.QUEUED, attempt=job.attempts, cause=cause.code, error=cause.error)
    events.announce(job, Kind.STATE, message, lease=lease, level="warn", data=facts)


def _end(
    lease: Lease,
    job: Job,
    state: str,
    message: str,
    seconds: float,
    *,
    facts: Told = NOTHING,
    **changes: Any,
) -> None:
    """The last event, the end state, and the checkpoint's key destroyed: caches live no longer than their job."""
    level = "error" if state == State.FAILED else "info"
    events.announce(job, Kind.STATE, message, lease=lease, level=level, data=facts.also(state=state))
    if job.checkpoint is not None:
        vault.destroy(job.checkpoint)
    running.update(
        lease, state=state, finished_at=Now(), lease_until=None, worker="", checkpoint=None,
        pause_requested=False, expected_end_at=None,
        training_seconds=F("training_seconds") + seconds, **changes,
    )  # fmt: skip
