"""Jobs: start, admit once the file is ready, order, cancel, fail. Each changes state by a conditional UPDATE."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from billing import limits
from billing.actions import record_usage
from modeling.actions import chain, events, moves, privacy
from modeling.actions.moves import Move
from modeling.actions.quoting import seconds_of
from modeling.actions.resolving import Resolved, check_spec, find_file, resolve
from modeling.actions.specs import JobSpec, load_spec
from modeling.actions.telling import public
from modeling.models import Dataset, File, Job, JobEvent, PrivacyEntry
from modeling.plans import dump_plan, dump_recipe
from saas.lib.background import enqueue
from saas.lib.errors import Conflict, Forbidden, Refusal
from tenants import audit, vault
from tenants.audit import Actor
from tenants.models import Member, Role, Tenant, User

State = Job.State
PRIORITIES = {"high": 1, "normal": 0, "low": -1}
PRIORITY_WORDS: Mapping[str, Callable[[], str]] = {
    "high": lambda: _("high"),
    "normal": lambda: _("normal"),
    "low": lambda: _("low"),
}


def start(tenant: Tenant, actor: Actor, spec: JobSpec, *, user: User | None = None) -> Job:
    """Create a job inside the tenant's scope: its budget is reserved and it waits for a worker.

    A file still being inspected gives a job in `validating_files`, admitted or failed when the file is ready. Raises
    Refusal (limits, budget, rule 14) and then leaves nothing behind.
    """
    _require_allowed(tenant, spec, user)
    check_spec(tenant, spec)
    file = find_file(tenant, spec.training_file, param="training_file")
    catalogue = (
        find_file(tenant, spec.catalogue_file, param="catalogue_file") if spec.catalogue_file else None
    )
    job = Job.objects.of(tenant).create(
        file=file, catalogue_file=catalogue, spec=spec.dump(), state=State.VALIDATING, suffix=spec.suffix,
        priority=PRIORITIES[spec.priority], created_by=user,
        privacy_off_reason=spec.privacy.reason.strip() if spec.privacy.mode == "off" else "",
    )  # fmt: skip
    events.announce(job, JobEvent.Kind.STATE, _("Created the job."), data=public(state=State.VALIDATING))
    if _is_ready(file) and (catalogue is None or _is_ready(catalogue)):
        _admit(tenant, job, resolve(tenant, spec, file, catalogue))
    else:
        enqueue("modeling.prepare_job", tenant_id=tenant.pk, job_id=job.pk)
    audit.record(tenant, actor, "job.start", job, file=file.public_id, privacy=spec.privacy.mode)
    job.refresh_from_db()
    return job


def _require_allowed(tenant: Tenant, spec: JobSpec, user: User | None) -> None:
    limits.require_writable(tenant)
    limits.require_verified_email(tenant, user)
    waiting = Job.objects.of(tenant).filter(state__in=[*Job.WAITING, State.PAUSED]).count()
    limits.require(tenant, "queued_jobs", waiting + 1)
    limits.require(tenant, "training_seconds", 0)
    if spec.privacy.allow_large_epsilon:
        owner = user is not None and Member.objects.of(tenant).filter(user=user, role=Role.OWNER).exists()
        if not owner:
            raise Forbidden(
                _("Only an owner, signed in, can allow an epsilon this large."), code="owner_required"
            )


def _is_ready(file: File) -> bool:
    return file.status == File.Status.PROCESSED


def _admit(tenant: Tenant, job: Job, resolved: Resolved) -> None:
    """Fill in what was resolved, reserve the budget, and queue the job.

    The ledger is locked first: two first jobs on datasets that share people would each hold a row the other needs.
    """
    chain.lock(tenant)
    plan = resolved.plan
    job.dataset_version = resolved.version
    job.plan = dump_plan(plan)
    changed = Job.objects.of(tenant).filter(pk=job.pk, state=State.VALIDATING).update(
        state=State.QUEUED,
        dataset_version=resolved.version,
        catalogue_version=resolved.catalogue,
        task=plan.recipe.task,
        base=plan.recipe.base,
        method=plan.method,
        recipe={**dump_recipe(plan.recipe), "columns": resolved.columns},
        plan=job.plan,
        delta=plan.delta,
        unit=plan.recipe.unit,
        estimated_seconds=seconds_of(tenant, plan, resolved.version.dataset),
    )  # fmt: skip
    if not changed:
        return
    if plan.recipe.epsilon is not None:
        Dataset.objects.of(tenant).filter(pk=resolved.version.dataset_id, unit_fixed=False).update(
            unit_fixed=True, unit_column=plan.recipe.unit
        )
    dataset = resolved.version.dataset
    dataset.refresh_from_db()
    if plan.recipe.epsilon is not None and dataset.unit_column != plan.recipe.unit:
        raise Conflict(  # another first job fixed it after this one was resolved
            _("Whose record a row is was fixed by this dataset's first private job, and cannot change."),
            param="privacy.unit",
            code="unit_fixed",
        )
    privacy.reserve(tenant, job, resolved.version, resolved.cost)
    message = _("Files are valid, the privacy budget is set aside, and the job waits for a worker.")
    facts = public(state=State.QUEUED, notes=list(plan.notes))
    events.announce(job, JobEvent.Kind.STATE, message, data=facts)
    enqueue("modeling.dispatch")


def prepare(tenant: Tenant, job_id: uuid.UUID | str) -> bool:
    """Admit or fail a job in `validating_files` whose files are ready; False while they are not. Opens no scope."""
    job = Job.objects.of(tenant).select_for_update().filter(pk=job_id, state=State.VALIDATING).first()
    if job is None:
        return True
    file, catalogue = job.file, job.catalogue_file
    statuses = {one.status for one in (file, catalogue) if one is not None}
    if File.Status.UPLOADED in statuses and File.Status.ERROR not in statuses:
        return False
    spec = load_spec(job.spec)
    find_file(tenant, spec.training_file, param="training_file")
    if spec.catalogue_file:
        find_file(tenant, spec.catalogue_file, param="catalogue_file")
    _admit(tenant, job, resolve(tenant, spec, file, catalogue))
    return True


def refuse(tenant: Tenant, job_id: uuid.UUID | str, refusal: Refusal) -> None:
    """End a job that could not be admitted, with the refusal's sentence."""
    job = Job.objects.of(tenant).filter(pk=job_id).first()
    if job is not None:
        end_unowned(tenant, job, State.FAILED, error=refusal.body()["error"])


def cancel(tenant: Tenant, actor: Actor, job: Job) -> Job:
    """Cancel: at once while nobody runs it, otherwise at the owner's next event. Raises Conflict when it has ended."""
    with locked(tenant, job) as now:
        moves.require(now, Move.CANCEL)
        Job.objects.of(tenant).filter(pk=job.pk).update(cancel_requested=True)
        if not end_unowned(tenant, job, State.CANCELLED):
            message = _("Cancelling: the run stops after its current block.")
            events.announce(job, JobEvent.Kind.MESSAGE, message)
        audit.record(tenant, actor, "job.cancel", job)
    job.refresh_from_db()
    return job


@contextmanager
def locked(tenant: Tenant, job: Job) -> Iterator[Job]:
    """The job's row as it stands, locked while a move is decided and made: no worker and no other caller moves it."""
    with transaction.atomic():
        yield Job.objects.of(tenant).select_for_update().get(pk=job.pk)


def prioritise(tenant: Tenant, actor: Actor, job: Job, priority: str) -> Job:
    """Order a waiting job among the tenant's own: high, normal or low. Raises Conflict once it has a worker."""
    if priority not in PRIORITIES:
        raise Refusal(_("priority is high, normal or low."), param="priority")
    with locked(tenant, job) as now:
        moves.require(now, Move.PRIORITISE)
        if now.priority != PRIORITIES[priority]:
            Job.objects.of(tenant).filter(pk=job.pk).update(priority=PRIORITIES[priority])
            message = _("Priority among your own jobs: %(priority)s.") % {
                "priority": PRIORITY_WORDS[priority]()
            }
            events.announce(job, JobEvent.Kind.MESSAGE, message, data=public(priority=priority))
            audit.record(tenant, actor, "job.prioritise", job, priority=priority)
            enqueue("modeling.dispatch")
    job.refresh_from_db()
    return job


def end_unowned(tenant: Tenant, job: Job, state: str, *, error: dict[str, Any] | None = None) -> bool:
    """End a job that no worker owns (waiting, or its lease ran out); False when one does.

    The epoch rises, so a worker that lost its lease can charge nothing more: only then is the rest released.
    """
    rows = Job.objects.of(tenant).select_for_update()
    waiting = rows.filter(pk=job.pk, state__in=[*Job.WAITING, State.PAUSED]).first()
    found = waiting or rows.filter(pk=job.pk, state=State.RUNNING, lease_until__lt=Now()).first()
    if found is None:
        return False
    if state == State.CANCELLED and found.training_seconds:  # what ran before it was paused or given back
        record_usage(tenant, "training_seconds", found.training_seconds, found.public_id)
    cost = privacy.cost_of_spent(found) if found.plan else None
    Job.objects.of(tenant).filter(pk=found.pk).update(
        state=state, epoch=F("epoch") + 1, lease_until=None, worker="", finished_at=Now(), error=error,
        epsilon=cost.epsilon if cost else None, checkpoint=None, pause_requested=False, expected_end_at=None,
    )  # fmt: skip
    if found.checkpoint is not None:
        vault.destroy(found.checkpoint)
    if cost is not None:
        kind = PrivacyEntry.Kind.FAILED if state == State.FAILED else PrivacyEntry.Kind.RELEASED
        privacy.close(tenant, found, kind=kind, cost=cost)
    level, message = (
        ("error", str((error or {}).get("message", ""))) if error else ("info", _("The job was cancelled."))
    )
    events.announce(found, JobEvent.Kind.STATE, message, level=level, data=public(state=state))
    return True


def stop_all(tenant: Tenant) -> int:
    """Take a tenant's running jobs from their workers, back into the queue (it was suspended, or its key refuses).

    The epoch rises: the worker's next write is fenced, and it stops. Queued jobs stay queued and are not dispatched.
    """
    running = list(Job.objects.of(tenant).select_for_update().filter(state=State.RUNNING))
    for job in running:
        state = State.PAUSED if job.pause_requested else State.QUEUED
        Job.objects.of(tenant).filter(pk=job.pk).update(
            state=state, epoch=F("epoch") + 1, attempts=0, lease_until=None, worker="",
            pause_requested=False, expected_end_at=None,
        )  # fmt: skip
        message = (
            _("Stopped: your own key is not available. The job goes on by itself once it is.")
            if tenant.state == Tenant.State.ACTIVE
            else _("Stopped: this tenant is suspended.")
        )
        events.announce(job, JobEvent.Kind.STATE, message, data=public(state=state))
    return len(running)
