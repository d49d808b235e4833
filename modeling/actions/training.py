"""One attempt at a job: the core's generator runs between short transactions, and the ledger commits first."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import closing

from django.conf import settings
from django.db import connection
from django.utils.translation import gettext as _

from modeling.actions import endings, events, privacy, running
from modeling.actions.rows import load_training_data
from modeling.actions.running import Fenced, Lease
from modeling.core import artifacts
from modeling.core.training import train
from modeling.core.types import (
    Charge,
    Checkpoint,
    CoreError,
    Event,
    HeldOut,
    Phase,
    Plan,
    Progress,
    Trained,
    TrainingData,
)
from modeling.models import DatasetVersion, Job, JobEvent
from modeling.plans import load_plan
from saas.lib.background import enqueue
from saas.lib.errors import Refusal
from tenants import vault
from tenants.models import Tenant, VaultObject
from tenants.scope import scope

logger = logging.getLogger(__name__)

PHASE_SECONDS = 0.5  # at most so often does work that spends nothing write an event
Kind = JobEvent.Kind


class Cancelled(Exception):
    """The tenant asked for a stop; what was charged is committed."""


class Interrupted(Exception):
    """This worker was asked to stop; the job goes on elsewhere."""


def run(lease: Lease, *, is_stopping: Callable[[], bool]) -> None:
    """Run one attempt of a claimed job to its end, its cancellation, or this worker's.

    Expected ends write the job's state; a bug rises, after the lease was dropped so that the next attempt can start.
    """
    if connection.in_atomic_block:
        raise RuntimeError("a run inside a transaction could not commit its charges before the gradients")
    settled = False
    try:
        _run_to_an_end(lease, is_stopping)
        settled = True
    except Fenced as error:
        settled = True
        logger.warning("job %s: %s", lease.job_id, error)
    finally:
        if not settled:
            running.drop(lease)
        enqueue("modeling.dispatch")


def _run_to_an_end(lease: Lease, is_stopping: Callable[[], bool]) -> None:
    started = time.monotonic()
    try:
        with running.kept(lease) as lost:
            _attempt(_Attempt(lease, lost, is_stopping, started))
    except Cancelled:
        endings.cancel(lease, seconds=time.monotonic() - started)
    except Interrupted:
        endings.give_back(lease, seconds=time.monotonic() - started)
    except (CoreError, Refusal) as error:
        endings.fail(lease, error, seconds=time.monotonic() - started)


class _Attempt:
    """What one attempt carries from event to event."""

    def __init__(
        self, lease: Lease, lost: threading.Event, is_stopping: Callable[[], bool], started: float
    ) -> None:
        self.lease = lease
        self.lost = lost
        self.is_stopping = is_stopping
        self.started = started
        self.phase_at = 0.0
        self.phase = ""
        with scope(lease.tenant_id):
            self.tenant = Tenant.objects.get(pk=lease.tenant_id)


def _attempt(attempt: _Attempt) -> None:
    job, plan, data, resume = _load(attempt)
    stream = train(plan, data, models_dir=settings.MODELS_DIR, resume=resume, spent=job.spent)
    with closing(stream):  # type: ignore[type-var]
        for event in stream:
            _take(attempt, event)
            if attempt.lost.is_set():
                raise Fenced("the lease was lost")
            if attempt.is_stopping() and not isinstance(event, Trained):
                raise Interrupted


def _load(attempt: _Attempt) -> tuple[Job, Plan, TrainingData, Checkpoint | None]:
    """The job, its plan, its rows in memory, and where an earlier attempt stopped."""
    with scope(attempt.tenant):
        job = running.owned(attempt.lease)
        again = job.attempts > 1 or job.checkpoint_id is not None
        message = _("Training continues on another worker.") if again else _("Training started.")
        events.announce(
            job, Kind.STATE, message, lease=attempt.lease, state=Job.State.RUNNING, attempt=job.attempts
        )
    plan = load_plan(job.plan)
    with scope(attempt.tenant):
        versions = DatasetVersion.objects.of(attempt.tenant).select_related("dataset")
        assert job.dataset_version_id is not None  # only admitted jobs are claimed
        version = versions.get(pk=job.dataset_version_id)
        catalogue = versions.filter(pk=job.catalogue_version_id).first() if job.catalogue_version_id else None
        sealed = job.checkpoint
    data = load_training_data(attempt.tenant, plan.recipe, job.recipe["columns"], version, catalogue)
    return job, plan, data, _resume(sealed)


def _resume(sealed: VaultObject | None) -> Checkpoint | None:
    if sealed is None:
        return None
    tensors, config = artifacts.load(vault.get(sealed))
    return Checkpoint(step=int(config["step"]), tensors=tensors)


def _take(attempt: _Attempt, event: Event) -> None:
    """Write one event down; the transaction has committed when this returns."""
    if isinstance(event, Trained):
        endings.succeed(attempt.lease, attempt.tenant, event, seconds=time.monotonic() - attempt.started)
    elif isinstance(event, Checkpoint):
        _store_checkpoint(attempt, event)
    elif not isinstance(event, Phase) or _is_due(attempt, event):
        with scope(attempt.tenant):
            job = running.owned(attempt.lease)
            _write(attempt, job, event)
        if job.cancel_requested:
            # The ledger first: this block is charged even if the user has just cancelled.
            raise Cancelled


def _is_due(attempt: _Attempt, event: Phase) -> bool:
    now = time.monotonic()
    is_edge = event.name != attempt.phase or event.done >= event.total
    if not is_edge and now - attempt.phase_at < PHASE_SECONDS:
        return False
    attempt.phase, attempt.phase_at = event.name, now
    return True


def _write(attempt: _Attempt, job: Job, event: Charge | Phase | Progress | HeldOut) -> None:
    lease = attempt.lease
    if isinstance(event, Charge):
        spent = privacy.charge(attempt.tenant, job, event.mechanism, first=event.first, count=event.count)
        running.update(lease, spent=spent)
        return
    numbers = dict(vars(event))
    if isinstance(event, Progress):
        message = _("Step %(step)s of %(steps)s.") % numbers
        running.update(lease, progress={**job.progress, **numbers}, epsilon=event.epsilon)
        events.announce(job, Kind.METRICS, message, lease=lease, **numbers)
    elif isinstance(event, HeldOut):
        message = _held_out_words(job, numbers)
        running.update(lease, progress={**job.progress, "held_out": numbers})
        events.announce(job, Kind.HELD_OUT, message, lease=lease, **numbers)
    else:
        numbers |= _public_rows(job, event)
        message = _("%(name)s: %(done)s of %(total)s rows.") % numbers
        running.update(lease, progress={**job.progress, "phase": numbers})
        events.announce(job, Kind.PHASE, message, lease=lease, **numbers)


def _held_out_words(job: Job, numbers: dict[str, object]) -> str:
    """One look at held-out people, by what its number counts for the task."""
    what = {
        "recommendation": _("Hidden item among the first 20"),
        "chat": _("Tokens of answers guessed right"),
    }.get(job.task, _("Held-out accuracy"))
    if job.privacy_off_reason:
        words = _("%(what)s: %(accuracy).3f (privacy is off: neither noised nor charged).")
    else:
        words = _("%(what)s: %(accuracy).3f ± %(noise_error).3f (noised and charged).")
    return words % {**numbers, "what": what}


def _public_rows(job: Job, event: Phase) -> dict[str, int]:
    """The share done as rows of the file, in twentieths: how many of its rows fit the recipe is a private count."""
    if event.name == "catalogue":
        return {}
    rows = int(job.plan["shape"]["rows"])
    return {"done": rows * (20 * event.done // max(event.total, 1)) // 20, "total": rows}


def _store_checkpoint(attempt: _Attempt, event: Checkpoint) -> None:
    """A new object under a new key, then one fenced UPDATE moves the pointer, then the old one's key goes."""
    sealed = vault.put(attempt.tenant, "checkpoint", artifacts.dump(event.tensors, {"step": event.step}))
    try:
        with scope(attempt.tenant):
            job = running.owned(attempt.lease)
            before = job.checkpoint
            running.update(attempt.lease, checkpoint=sealed)
            if before is not None:
                vault.destroy(before)
    except Fenced:
        vault.destroy(sealed)
        raise
    if job.cancel_requested:
        raise Cancelled
