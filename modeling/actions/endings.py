"""How an owned job ends: succeeded, cancelled, failed, or given back. Each is one fenced transaction."""

from __future__ import annotations

from typing import Any

from django.db.models import F
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from billing.actions import record_usage
from modeling.actions import endpoints, events, privacy, running, versions
from modeling.actions.running import Fenced, Lease
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


def succeed(lease: Lease, tenant: Tenant, trained: Trained, *, seconds: float) -> ModelVersion:
    """Store the artefact, then make version, card, endpoint and bill, and settle the ledger, all or nothing."""
    cost = _cost_so_far(lease)
    sealed = vault.put(tenant, "artifact", artifacts.dump(trained.tensors, trained.config))
    try:
        with scope(tenant):
            job = running.owned(lease)
            privacy.close(tenant, job, kind=PrivacyEntry.Kind.SETTLED, cost=cost)
            version = versions.create_version(tenant, job, trained, cost, sealed)
            endpoint = endpoints.point(tenant, audit.SYSTEM, endpoints.default_name(job), version)
            audit.record(tenant, audit.SYSTEM, "model.created", version, job=job.public_id)
            total = job.training_seconds + seconds
            record_usage(tenant, "training_seconds", total, job.public_id)
            message = _("The model %(name)s is ready and answers as %(endpoint)s.") % {
                "name": version.name, "endpoint": endpoint.name,
            }  # fmt: skip
            facts = {"model": version.name, "endpoint": endpoint.name, "epsilon": cost.epsilon}
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


def give_back(lease: Lease, *, seconds: float) -> None:
    """Return the job to the queue because this worker stops; its checkpoint and its reservation stay."""
    with scope(lease.tenant_id):
        job = running.owned(lease)
        message = _("This worker is stopping; the job goes on with the next one.")
        events.announce(job, Kind.STATE, message, lease=lease, state=State.QUEUED)
        running.update(lease, training_seconds=F("training_seconds") + seconds)
    running.release(lease)


def _end(
    lease: Lease,
    job: Job,
    state: str,
    message: str,
    seconds: float,
    *,
    facts: dict[str, Any] | None = None,
    **changes: Any,
) -> None:
    """The last event, the end state, and the checkpoint's key destroyed: caches live no longer than their job."""
    level = "error" if state == State.FAILED else "info"
    events.announce(job, Kind.STATE, message, lease=lease, level=level, state=state, **(facts or {}))
    if job.checkpoint is not None:
        vault.destroy(job.checkpoint)
    running.update(
        lease, state=state, finished_at=Now(), lease_until=None, worker="", checkpoint=None,
        training_seconds=F("training_seconds") + seconds, **changes,
    )  # fmt: skip
