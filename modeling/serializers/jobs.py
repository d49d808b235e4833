"""Jobs, events and quotes on the wire."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from modeling.actions.jobs import PRIORITIES
from modeling.actions.specs import JobSpec, PrivacySpec
from modeling.core import sweeps
from modeling.models import Job, JobEvent
from modeling.queries.checkpoints import Stored
from modeling.queries.lineage import data_of_job
from modeling.queries.queueing import Estimate

LARGEST = 1_000_000
METHOD_LENGTH = 20
_PRIORITY_NAMES = {number: name for name, number in PRIORITIES.items()}


class DeltaField(serializers.Field[Any, Any, Any, Any]):
    """A number in (0, 1), or "auto" for the house rule."""

    def to_internal_value(self, data: Any) -> float | None:
        """None stands for "auto"."""
        if data in ("auto", None):
            return None
        if isinstance(data, bool) or not isinstance(data, int | float) or not 0 < data < 1:
            raise serializers.ValidationError('delta is "auto" or a number between 0 and 1.')
        return float(data)

    def to_representation(self, value: Any) -> Any:
        """As it is."""
        return value


class MethodField(serializers.Field[Any, Any, Any, Any]):
    """A method's name, or OpenAI's object, whose type `supervised` means auto."""

    def to_internal_value(self, data: Any) -> str:
        """The name; "auto" for what OpenAI's clients send."""
        value = data.get("type", "supervised") if isinstance(data, dict) else data
        if not isinstance(value, str) or len(value) > METHOD_LENGTH:
            raise serializers.ValidationError("method is a name such as auto, head or lora.")
        return "auto" if value in ("", "supervised") else value

    def to_representation(self, value: Any) -> Any:
        """As it is."""
        return value


class PrivacyFields(serializers.Serializer[Any]):
    """The `privacy` object of a job."""

    mode = serializers.ChoiceField(
        ["on", "off"], default="on", error_messages={"invalid_choice": "mode is on or off."}
    )
    epsilon = serializers.FloatField(required=False, allow_null=True, min_value=0.001, max_value=1000)
    delta = DeltaField(required=False, allow_null=True)
    unit = serializers.CharField(required=False, allow_blank=True, allow_null=True, max_length=200)
    reason = serializers.CharField(required=False, allow_blank=True, default="", max_length=500)


class FeatureFields(serializers.Serializer[Any]):
    """A declared column of a table: what is left out is taken from the pack or asked for."""

    name = serializers.CharField(max_length=200)
    kind = serializers.ChoiceField(["number", "category"], required=False)
    low = serializers.FloatField(required=False)
    high = serializers.FloatField(required=False)
    categories = serializers.ListField(
        child=serializers.CharField(max_length=200, allow_blank=True), required=False, max_length=1000
    )


class TargetFields(serializers.Serializer[Any]):
    """The declared bounds of a regression's number."""

    low = serializers.FloatField()
    high = serializers.FloatField()


class SweepFields(serializers.Serializer[Any]):
    """A sweep: how many runs to expect."""

    runs = serializers.FloatField(min_value=sweeps.FEWEST_RUNS, max_value=sweeps.MOST_RUNS)


class PriorityRequest(serializers.Serializer[Any]):
    """POST …/priority."""

    priority = serializers.ChoiceField(["high", "normal", "low"])


class JobRequest(serializers.Serializer[Any]):
    """POST /v1/fine_tuning/jobs and /quote: OpenAI's fields, then ours."""

    training_file = serializers.CharField(max_length=64)
    dataset_version = serializers.IntegerField(
        required=False, allow_null=True, min_value=1, max_value=LARGEST,
        help_text="The version of the file's dataset to train on; the newest when left out.",
    )  # fmt: skip
    model = serializers.CharField(required=False, allow_blank=True, default="", max_length=64)
    suffix = serializers.CharField(
        required=False, allow_blank=True, allow_null=True, default="", max_length=64
    )
    seed = serializers.IntegerField(
        required=False, allow_null=True, help_text="Ignored: noise never has a known seed."
    )
    task = serializers.CharField(required=False, allow_blank=True, default="", max_length=20)
    method = MethodField(required=False, default="auto")
    columns = serializers.DictField(child=serializers.CharField(max_length=200), required=False, default=dict)
    labels = serializers.ListField(
        child=serializers.CharField(max_length=200), required=False, default=list, max_length=1000
    )
    catalogue_file = serializers.CharField(
        required=False, allow_blank=True, allow_null=True, default="", max_length=64
    )
    privacy = PrivacyFields(required=False)
    max_steps = serializers.IntegerField(required=False, allow_null=True, min_value=1, max_value=LARGEST)
    multi_label = serializers.BooleanField(required=False, default=False)
    features = serializers.ListField(child=FeatureFields(), required=False, max_length=1000)
    target = TargetFields(required=False, allow_null=True)
    protected = serializers.ListField(
        child=serializers.CharField(max_length=200),
        required=False,
        default=list,
        max_length=8,
        help_text="Columns to compare, never learnt from. Where the pack does not know the groups, naming the column "
        "declares the values in the file public.",
    )
    sweep = SweepFields(required=False, allow_null=True)
    audit = serializers.BooleanField(required=False, default=False)
    priority = serializers.ChoiceField(["high", "normal", "low"], required=False, default="normal")

    def spec(self) -> JobSpec:
        """The validated request as a JobSpec."""
        data = self.validated_data
        privacy = data.get("privacy") or {}
        return JobSpec(
            training_file=data["training_file"],
            model=data["model"],
            task=data["task"],
            method=data["method"],
            columns=dict(data["columns"]),
            labels=tuple(data["labels"]),
            catalogue_file=data["catalogue_file"] or "",
            privacy=PrivacySpec(**{key: value for key, value in privacy.items() if value is not None}),
            max_steps=data.get("max_steps"),
            suffix=data["suffix"] or "",
            dataset_version=data.get("dataset_version"),
            multi_label=data["multi_label"],
            features=tuple(dict(one) for one in data.get("features") or ()),
            target=dict(data["target"]) if data.get("target") else None,
            protected=tuple(data["protected"]),
            sweep_runs=(data.get("sweep") or {}).get("runs", 0.0),
            audit=data["audit"],
            priority=data["priority"],
        )


def job_body(job: Job, place: Estimate | None = None) -> dict[str, Any]:
    """OpenAI's fine_tuning.job, with `privacy`, `quote`, `queue` and `progress` beside it."""
    version = job.model_version
    return {
        "id": job.public_id,
        "object": "fine_tuning.job",
        "created_at": int(job.created_at.timestamp()),
        "error": job.error,
        "fine_tuned_model": version.name if version else None,
        "finished_at": int(job.finished_at.timestamp()) if job.finished_at else None,
        "hyperparameters": {"n_epochs": "auto", "batch_size": "auto", "learning_rate_multiplier": "auto"},
        "model": job.base or job.spec.get("model", ""),
        "organization_id": job.tenant.slug,
        "result_files": [],
        "seed": 0,
        "status": job.state,
        "trained_tokens": None,
        "training_file": job.file.public_id,
        "data": data_of_job(job),
        "validation_file": None,
        "user_provided_suffix": job.suffix or None,
        "estimated_finish": _estimated_finish(job),
        "integrations": [],
        "metadata": {},
        "method": {"type": "supervised"},
        "task": job.task or job.spec.get("task", ""),
        "training_method": job.method,
        "cancel_requested": job.cancel_requested,
        "pause_requested": job.pause_requested,
        "priority": _PRIORITY_NAMES[job.priority],
        "queue": place.body() if place and job.state == Job.State.QUEUED else None,
        "privacy": _privacy(job),
        "quote": {"seconds": round(job.estimated_seconds, 1)} if job.plan else None,
        "progress": job.progress or None,
    }


def _estimated_finish(job: Job) -> int | None:
    if job.state != Job.State.RUNNING or job.expected_end_at is None:
        return None
    return int(job.expected_end_at.timestamp())


def _privacy(job: Job) -> dict[str, Any]:
    if not job.is_private:
        return {"mode": "off", "reason": job.privacy_off_reason}
    return {
        "mode": "on",
        "epsilon": job.plan.get("recipe", {}).get("epsilon") or job.spec.get("privacy", {}).get("epsilon"),
        "epsilon_planned": job.plan.get("epsilon"),
        "epsilon_spent": job.epsilon,
        "delta": job.delta,
        "unit": job.unit,
        "adjacency": "zero-out",
    }


def event_id(job: Job, seq: int) -> str:
    """The public id of an event: made of its job's and its number."""
    return f"ftevent-{job.public_id.removeprefix('ftjob-')}-{seq}"


def event_body(job: Job, event: JobEvent) -> dict[str, Any]:
    """OpenAI's fine_tuning.job.event, with `seq` and our `kind` beside it."""
    return {
        "id": event_id(job, event.seq),
        "object": "fine_tuning.job.event",
        "created_at": int(event.at.timestamp()),
        "level": event.level,
        "message": event.message,
        "type": "metrics" if event.kind == JobEvent.Kind.METRICS else "message",
        "data": event.data,
        "seq": event.seq,
        "kind": event.kind,
    }


def checkpoint_body(job: Job, stored: Stored) -> dict[str, Any]:
    """OpenAI's fine_tuning.job.checkpoint; `metrics` holds released numbers only, and our fields stand beside it."""
    is_last = job.model_version is not None and stored.step == (job.plan or {}).get("steps")
    return {
        "id": f"ftckpt-{job.public_id.removeprefix('ftjob-')}-{stored.seq}",
        "object": "fine_tuning.job.checkpoint",
        "created_at": int(stored.at.timestamp()),
        "fine_tuning_job_id": job.public_id,
        "fine_tuned_model_checkpoint": job.model_version.name if job.model_version and is_last else None,
        "step_number": stored.step,
        "metrics": {"step": stored.step, **stored.released},
        "epsilon_spent": stored.epsilon,
        "is_kept": stored.is_kept,
    }
