"""What the pages of training show: rows of the list, one job with its events, the points of its charts."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from django.utils.translation import gettext as _

from modeling.models import Dataset, Job, JobEvent
from modeling.queries import queueing, words
from modeling.queries.queueing import Estimate
from tenants.models import Tenant
from tenants.scope import TenantQuerySet

MOST_POINTS = 400
MOST_EVENTS = 200
TOLD = (
    "message",
    "state",
    "held_out",
    "checkpoint",
)  # events that the list prints; the others move charts only


@dataclass(frozen=True)
class JobPage:
    """One job as pages print it. Epsilon is what was spent so far; `target` what was asked for."""

    public_id: str
    title: str
    state: str
    is_ended: bool
    cancel_requested: bool
    is_pausing: bool
    is_waiting: bool
    state_words: str
    priority: str
    task_words: str
    method_words: str
    base: str
    is_private: bool
    privacy_off_reason: str
    person: str
    epsilon: float | None
    target: float | None
    delta: float | None
    units: int | None
    dataset: Dataset | None
    created_at: datetime
    training_seconds: float | None
    last_seq: int
    error: dict[str, Any]
    notes: list[str]
    step: int | None
    steps: int | None
    rate: float | None
    seconds_left: float | None
    phase_words: str

    @property
    def percent_done(self) -> int | None:
        """Whole percent of the steps while the job runs, otherwise None."""
        if self.state != Job.State.RUNNING or not self.steps or self.step is None:
            return None
        return min(100, round(100 * self.step / self.steps))


@dataclass(frozen=True)
class Charts:
    """Points and readings of the three charts of a job's page; points are [x, y] or [x, y, error]."""

    epsilon: list[list[float | None]] = field(default_factory=list)
    accuracy: list[list[float | None]] = field(default_factory=list)
    rate: list[list[float | None]] = field(default_factory=list)
    epsilon_reading: str = ""
    accuracy_reading: str = ""
    rate_reading: str = ""
    # The same sentences for charts.js, which fills in the braces.
    epsilon_words: str = ""
    accuracy_words: str = ""
    rate_words: str = ""
    epsilon_columns: tuple[str, ...] = ()
    accuracy_columns: tuple[str, ...] = ()
    rate_columns: tuple[str, ...] = ()
    accuracy_title: str = ""
    is_stepwise: bool = True  # False: one noisy release, nothing to watch step by step


def jobs_of(tenant: Tenant) -> TenantQuerySet[Job]:
    """All jobs of a tenant with what their pages name."""
    return Job.objects.of(tenant).select_related("dataset_version__dataset", "file")


def job_rows(tenant: Tenant, jobs: Iterable[Job]) -> list[JobPage]:
    """Jobs as pages print them."""
    return [job_page(tenant, job) for job in jobs]


def job_page(tenant: Tenant, job: Job) -> JobPage:
    """One job as its page prints it."""
    progress = job.progress or {}
    phase = progress.get("phase", {})
    dataset = job.dataset_version.dataset if job.dataset_version else None
    shape = (job.plan or {}).get("shape", {})
    return JobPage(
        public_id=job.public_id,
        title=_title(job, dataset),
        state=job.state,
        is_ended=job.is_ended,
        cancel_requested=job.cancel_requested,
        is_pausing=_is_pausing(job),
        is_waiting=job.state in Job.WAITING,
        state_words=_("pausing…") if _is_pausing(job) else "",
        priority={1: "high", 0: "normal", -1: "low"}[job.priority],
        task_words=words.task_words(job.task),
        method_words=words.method_words(job.method),
        base=job.base,
        is_private=job.is_private,
        privacy_off_reason=job.privacy_off_reason,
        person=words.person(tenant),
        epsilon=_spent(job, progress),
        target=_target(job),
        delta=job.delta,
        units=shape.get("train_units", 0) + shape.get("held_out_units", 0) or None,
        dataset=dataset,
        created_at=job.created_at,
        training_seconds=job.training_seconds or None,
        last_seq=job.last_seq,
        error=job.error or {},
        notes=list((job.plan or {}).get("notes", [])),
        step=progress.get("step", phase.get("done")),
        steps=progress.get("steps", phase.get("total")),
        rate=progress.get("examples_per_second"),
        seconds_left=progress.get("seconds_left"),
        phase_words=_phase_words(job, progress),
    )


def _is_pausing(job: Job) -> bool:
    return job.state == Job.State.RUNNING and job.pause_requested and not job.cancel_requested


def place_of(tenant: Tenant, job: Job, *, max_attempts: int) -> Estimate | None:
    """Where a queued job stands in the line of all tenants, and when it may start; None in other states."""
    if job.state != Job.State.QUEUED:
        return None
    return queueing.estimates_for(tenant, max_attempts=max_attempts).get(job.pk)


def _title(job: Job, dataset: Dataset | None) -> str:
    data = dataset.name if dataset else job.file.name
    return f"{job.suffix} · {data}" if job.suffix else data


def _target(job: Job) -> float | None:
    recipe: dict[str, Any] = job.recipe or {}
    if "epsilon" in recipe:
        return float(recipe["epsilon"]) if recipe["epsilon"] is not None else None
    asked = ((job.spec or {}).get("privacy") or {}).get("epsilon")
    return float(asked) if asked is not None else None


def _spent(job: Job, progress: dict[str, Any]) -> float | None:
    if not job.is_private:
        return None
    return job.epsilon if job.epsilon is not None else progress.get("epsilon", 0.0)


def _phase_words(job: Job, progress: dict[str, Any]) -> str:
    if job.state == Job.State.VALIDATING:
        return _("Waiting until the file is checked")
    if job.state == Job.State.QUEUED:
        return _("Waiting for a free worker")
    if job.state == Job.State.PAUSED:
        return _("Paused")
    if "steps" in progress:
        return _("Step %(step)s of %(steps)s") % {"step": progress.get("step", 0), "steps": progress["steps"]}
    if phase := progress.get("phase"):
        done = {
            "name": phase["name"].capitalize(),
            "done": f"{phase['done']:,}",
            "total": f"{phase['total']:,}",
        }
        return _("%(name)s: %(done)s of %(total)s rows") % done
    return _("Starting")


def told_events(tenant: Tenant, job: Job) -> list[dict[str, Any]]:
    """The newest events that are told in words, newest first: at, level, message."""
    rows = JobEvent.objects.of(tenant).filter(job=job, kind__in=TOLD, seq__lte=job.last_seq).order_by("-seq")
    return [{"at": one.at, "level": one.level, "message": one.message} for one in rows[:MOST_EVENTS]]


def charts_of(tenant: Tenant, job: Job) -> Charts:
    """The charts of a job from its events up to `job.last_seq`; at most 400 points a line, the last one kept."""
    events = JobEvent.objects.of(tenant).filter(
        job=job, kind__in=("metrics", "held_out"), seq__lte=job.last_seq
    )
    metrics: list[dict[str, Any]] = []
    accuracy: list[list[float | None]] = []
    for kind, data in events.order_by("seq").values_list("kind", "data"):
        if kind == "metrics":
            metrics.append(data)
        else:
            accuracy.append([data.get("step"), data.get("accuracy"), data.get("noise_error")])
    thin = _thinned(metrics)
    epsilon = [[one.get("step"), one.get("epsilon")] for one in thin if one.get("epsilon") is not None]
    rate = [
        [one.get("step"), one.get("examples_per_second")] for one in thin if one.get("examples_per_second")
    ]
    charts = _with_words(_target(job), epsilon, accuracy, rate)
    is_stepwise = int((job.plan or {}).get("steps", 2)) > 1
    return replace(charts, accuracy_title=_accuracy_title(job.task), is_stepwise=is_stepwise)


def _accuracy_title(task: str) -> str:
    if task == "recommendation":
        return _("Hidden item among the first 20, held out, with noise")
    if task == "chat":
        return _("Tokens of answers guessed right, held out, with noise")
    return _("Held-out accuracy, with noise")


def _thinned(points: list[dict[str, Any]]) -> list[dict[str, Any]]:
    stride = max(1, -(-len(points) // MOST_POINTS))
    return [point for index, point in enumerate(points) if index % stride == 0 or index == len(points) - 1]


def _with_words(target: float | None, epsilon: list[Any], accuracy: list[Any], rate: list[Any]) -> Charts:
    spent = _("{y} of {target} spent after step {x}")
    held_out = _("{y} % ± {error} of noise at step {x}")
    speed = _("{y} examples a second at step {x}")
    step = _("Step")
    return Charts(
        epsilon=epsilon,
        accuracy=accuracy,
        rate=rate,
        epsilon_words=spent,
        accuracy_words=held_out,
        rate_words=speed,
        epsilon_reading=_filled(spent, _rounded_up(epsilon[-1:]), target, scale=1, digits=2)
        or _("Nothing spent yet"),
        accuracy_reading=_filled(held_out, accuracy, target, scale=100, digits=1)
        or _("A few noised looks at held-out people"),
        rate_reading=_filled(speed, rate, target, scale=1, digits=0) or _("Examples worked through"),
        epsilon_columns=(step, _("Epsilon spent")),
        accuracy_columns=(step, _("Accuracy"), _("Standard error of the noise")),
        rate_columns=(step, _("Examples a second")),
    )


def _rounded_up(points: list[Any]) -> list[Any]:
    """Hundredths, rounded up: a reading never tells less than was spent."""
    return [[x, math.ceil(round(100 * y, 6)) / 100] for x, y in points]


def _filled(sentence: str, points: list[Any], target: float | None, *, scale: float, digits: int) -> str:
    """The sentence about the last point; empty without points."""
    if not points:
        return ""
    x, y, *error = points[-1]
    return sentence.format(
        x=x,
        y=f"{scale * y:,.{digits}f}",
        target=target,
        error=f"{scale * error[0]:.{digits}f}" if error else "",
    )
