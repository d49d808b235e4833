"""One attempt at a job: the core's generator runs between short transactions, and the ledger commits first."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

from django.conf import settings
from django.db import connection
from django.utils.translation import gettext as _

from modeling.actions import commitments, endings, events, privacy, running
from modeling.actions.causes import cause_of
from modeling.actions.rows import load_training_data
from modeling.actions.running import Fenced, Lease
from modeling.actions.telling import Told, of_event, public
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
STOP_PATIENCE_SECONDS = 10.0  # for the next checkpoint, of the 30 s in which a worker must be gone
Kind = JobEvent.Kind


class Cancelled(Exception):
    """The tenant asked for a stop; what was charged is committed."""


class Paused(Exception):
    """The tenant asked for a pause, and everything that was charged is in the checkpoint."""


class Interrupted(Exception):
    """This worker was asked to stop; the job goes on elsewhere."""


def run(lease: Lease, *, is_stopping: Callable[[], bool]) -> None:
    """Run one attempt of a claimed job to its end, its cancellation or pause, or this worker's stop.

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
    except MemoryError as error:
        settled = True  # it must not rise: the pool's parent would fall with it
        logger.exception("job %s ran out of memory", lease.job_id)
        _lose(lease, error)
    finally:
        if not settled:
            _lose(lease, sys.exception())
        enqueue("modeling.dispatch")


def _lose(lease: Lease, error: BaseException | None) -> None:
    """The next attempt need not wait for the lease to run out; whoever took the job meanwhile is left alone."""
    try:
        endings.lose(lease, cause_of(error))
    except Fenced as fenced:
        logger.warning("job %s: %s", lease.job_id, fenced)


def _run_to_an_end(lease: Lease, is_stopping: Callable[[], bool]) -> None:
    started = time.monotonic()
    try:
        with running.kept(lease) as lost:
            _attempt(_Attempt(lease, lost, is_stopping, started))
    except Cancelled:
        endings.cancel(lease, seconds=time.monotonic() - started)
    except Paused:
        endings.pause(lease, seconds=time.monotonic() - started)
    except Interrupted:
        endings.give_back(lease, seconds=time.monotonic() - started)
    except vault.KeysAway as away:  # nothing is wrong with the job: it goes on once its keys can be had
        endings.give_back(lease, seconds=time.monotonic() - started, why=str(away.message))
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
        self.cpu_started = time.process_time()
        self.phase_at = 0.0
        self.phase = ""
        self.unsaved: set[str] = (
            set()
        )  # mechanisms charged since the last checkpoint: their work would be lost
        self.stop_at = 0.0  # when this worker was asked to stop; 0: not yet
        self.held_out: set[str] = set()  # mechanisms that release numbers of held-out people
        self.saved_step = -1
        with scope(lease.tenant_id):
            self.tenant = Tenant.objects.get(pk=lease.tenant_id)


def _attempt(attempt: _Attempt) -> None:
    job, plan, data, resume = _load(attempt)
    # A sweep's scores are in its checkpoints, like its training: only a single release is done once it is told.
    attempt.held_out = {
        one.name for one in plan.mechanisms if one.partition == "held_out" and not one.repeats
    }
    plan = _in_less_memory(plan, lost=job.attempts - 1)
    stream = train(plan, data, models_dir=settings.MODELS_DIR, resume=resume, spent=job.spent)
    with closing(stream):  # type: ignore[type-var]
        for event in stream:
            if isinstance(event, Charge) and _must_stop(attempt):
                raise Interrupted  # before the block is charged: afterwards it would be paid for and lost
            _take(attempt, event)
            if attempt.lost.is_set():
                raise Fenced("the lease was lost")
            _note_saved(attempt, event)
            if not isinstance(event, Charge | Trained) and _must_stop(attempt):
                raise Interrupted


def _must_stop(attempt: _Attempt) -> bool:
    """Once this worker is asked to stop: where nothing charged would be lost, or when that takes too long to come."""
    if not attempt.stop_at and attempt.is_stopping():
        attempt.stop_at = time.monotonic()
    is_late = time.monotonic() - attempt.stop_at > STOP_PATIENCE_SECONDS
    return bool(attempt.stop_at) and (is_late or not attempt.unsaved)


def _in_less_memory(plan: Plan, *, lost: int) -> Plan:
    """After an attempt that was lost, perhaps for want of memory: half the micro-batch, of the same logical batch."""
    return replace(plan, settings={**plan.settings, "memory_scale": 0.5**lost}) if lost > 0 else plan


def _note_saved(attempt: _Attempt, event: Event) -> None:
    """Keep count of what was charged and is in no checkpoint yet; a release is done once it is told."""
    if isinstance(event, Charge):
        attempt.unsaved.add(event.mechanism)
    elif isinstance(event, HeldOut):
        attempt.unsaved -= attempt.held_out
    elif isinstance(event, Checkpoint):
        attempt.unsaved &= attempt.held_out
        attempt.saved_step = event.step


def _load(attempt: _Attempt) -> tuple[Job, Plan, TrainingData, Checkpoint | None]:
    """The job, its plan, its rows in memory, and where an earlier attempt stopped."""
    with scope(attempt.tenant):
        job = running.owned(attempt.lease)
        again = job.attempts > 1 or job.checkpoint_id is not None
        message = _("Training continues on another worker.") if again else _("Training started.")
        facts = public(state=Job.State.RUNNING, attempt=job.attempts)
        events.announce(job, Kind.STATE, message, lease=attempt.lease, data=facts)
    plan = load_plan(job.plan)
    with scope(attempt.tenant):
        versions = DatasetVersion.objects.of(attempt.tenant).select_related("dataset")
        assert job.dataset_version_id is not None  # only admitted jobs are claimed
        version = versions.get(pk=job.dataset_version_id)
        catalogue = versions.filter(pk=job.catalogue_version_id).first() if job.catalogue_version_id else None
        sealed = job.checkpoint
    data = load_training_data(attempt.tenant, plan.recipe, job.recipe["columns"], version, catalogue)
    commitments.record(attempt.lease, attempt.tenant, job, plan, version, data)
    return job, plan, data, _resume(sealed)


def _resume(sealed: VaultObject | None) -> Checkpoint | None:
    if sealed is None:
        return None
    tensors, config = artifacts.load(vault.get(sealed))
    return Checkpoint(step=int(config["step"]), tensors=tensors)


def _take(attempt: _Attempt, event: Event) -> None:
    """Write one event down; the transaction has committed when this returns."""
    if isinstance(event, Trained):
        worked = time.process_time() - attempt.cpu_started
        seconds = time.monotonic() - attempt.started
        endings.succeed(attempt.lease, attempt.tenant, event, seconds=seconds, cpu_seconds=worked)
    elif isinstance(event, Checkpoint):
        _store_checkpoint(attempt, event)
    elif not isinstance(event, Phase) or _is_due(attempt, event):
        with scope(attempt.tenant):
            job = running.owned(attempt.lease)
            if isinstance(event, Charge):
                _heed(attempt, job, event)  # before the charge: a block that will not run costs nothing
            _write(attempt, job, event)
        if not isinstance(event, Charge):
            _heed(attempt, job, event)


def _heed(attempt: _Attempt, job: Job, event: Event) -> None:
    """Stop where the tenant wishes it: cancelled at any event, paused where nothing charged would be lost."""
    if job.cancel_requested:
        raise Cancelled
    if not job.pause_requested or attempt.unsaved:
        return
    is_release = isinstance(event, Charge) and event.mechanism in attempt.held_out
    if isinstance(event, Charge | Progress | Phase) and not is_release:
        raise Paused


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
    told = of_event(event)
    if isinstance(event, Progress):
        told = told.also(has_checkpoint=event.step == attempt.saved_step)
        ends = running.after(event.seconds_left)
        running.update(
            lease, progress={**job.progress, **told.facts}, epsilon=event.epsilon, expected_end_at=ends
        )
        kind, message = Kind.METRICS, _("Step %(step)s of %(steps)s.") % told.facts
    elif isinstance(event, HeldOut):
        running.update(lease, progress={**job.progress, "held_out": dict(told.facts)})
        kind, message = Kind.HELD_OUT, _held_out_words(job, told)
    else:
        told = told.also(**_public_rows(job, event))
        running.update(lease, progress={**job.progress, "phase": dict(told.facts)})
        kind, message = Kind.PHASE, _("%(name)s: %(done)s of %(total)s rows.") % told.facts
    events.announce(job, kind, message, lease=lease, data=told)


def _held_out_words(job: Job, told: Told) -> str:
    """One look at held-out people, by what its number counts for the task."""
    what = {
        "recommendation": _("Hidden item among the first 20"),
        "chat": _("Tokens of answers guessed right"),
    }.get(job.task, _("Held-out accuracy"))
    if job.plan["recipe"].get("multi_label"):
        what = _("Held-out overlap of labels")
    if job.privacy_off_reason:
        words = _("%(what)s: %(accuracy).3f (privacy is off: neither noised nor charged).")
    else:
        words = _("%(what)s: %(accuracy).3f ± %(noise_error).3f (noised and charged).")
    return words % {**told.facts, "what": what}


def _public_rows(job: Job, event: Phase) -> dict[str, int]:
    """The share done as rows of the file, in twentieths: how many of its rows fit the recipe is a private count."""
    if event.name == "catalogue":
        return {"done": event.done, "total": event.total}
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
