"""Jobs, their numbered events, the workers that run them, and remembered answers to repeated requests."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q

from saas.lib.db import public_id, uuid7
from tenants.scope import TenantForeignKey, TenantOwned


def job_id() -> str:
    """A new public job id."""
    return public_id("ftjob-")


class Job(TenantOwned):
    """One training run asked for by a tenant: this row is the truth, a queue message is only a hint.

    `epoch` counts the owners: every write of a worker names the epoch it claimed, so that a worker that lost its lease
    writes nothing more.
    """

    class State(models.TextChoices):
        """The states of the OpenAI API; only `running` has an owner."""

        VALIDATING = "validating_files"
        QUEUED = "queued"
        RUNNING = "running"
        PAUSED = "paused"
        SUCCEEDED = "succeeded"
        FAILED = "failed"
        CANCELLED = "cancelled"

    # What the operator role may read: times and states, never what the tenant wrote or declared.
    OPERATOR_COLUMNS = (
        "id", "tenant_id", "public_id", "task", "base", "method", "state", "cancel_requested", "epoch", "lease_until",
        "offered_at", "worker", "attempts", "last_seq", "created_at", "started_at", "finished_at", "training_seconds",
        "priority", "pause_requested", "estimated_seconds", "expected_end_at",
    )  # fmt: skip
    WAITING = (State.VALIDATING, State.QUEUED)
    OPEN = (State.VALIDATING, State.QUEUED, State.RUNNING, State.PAUSED)
    ENDED = (State.SUCCEEDED, State.FAILED, State.CANCELLED)

    public_id = models.CharField(max_length=40, default=job_id)
    file = TenantForeignKey("modeling.File", on_delete=models.PROTECT)
    catalogue_file = TenantForeignKey("modeling.File", null=True, on_delete=models.PROTECT)
    dataset_version = TenantForeignKey("modeling.DatasetVersion", null=True, on_delete=models.PROTECT)
    catalogue_version = TenantForeignKey("modeling.DatasetVersion", null=True, on_delete=models.PROTECT)
    task = models.CharField(max_length=20, blank=True)
    base = models.CharField(max_length=40, blank=True)
    method = models.CharField(max_length=20, default="auto")
    spec = models.JSONField(default=dict)  # what was asked, before anything was guessed
    recipe = models.JSONField(default=dict)
    plan = models.JSONField(default=dict)
    state = models.CharField(max_length=20, choices=State.choices, default=State.QUEUED)
    cancel_requested = models.BooleanField(default=False)
    pause_requested = models.BooleanField(default=False)
    priority = models.SmallIntegerField(default=0)  # among the tenant's own jobs: 1 high, 0 normal, -1 low
    estimated_seconds = models.FloatField(default=0)  # of the whole run, as quoted
    expected_end_at = models.DateTimeField(null=True)  # of the run that goes on now, by its last report
    epoch = models.PositiveIntegerField(default=0)
    lease_until = models.DateTimeField(null=True)
    offered_at = models.DateTimeField(null=True)
    worker = models.CharField(max_length=120, blank=True)
    attempts = models.PositiveSmallIntegerField(default=0)
    last_seq = models.PositiveIntegerField(default=0)
    epsilon = models.FloatField(null=True)  # spent, PLD, zero-out adjacency
    delta = models.FloatField(null=True)
    unit = models.CharField(max_length=200, blank=True)
    privacy_off_reason = models.CharField(max_length=500, blank=True)
    progress = models.JSONField(default=dict)  # the last public numbers, for lists and first paint
    error = models.JSONField(null=True)
    suffix = models.CharField(max_length=18, blank=True)
    checkpoint = TenantForeignKey("tenants.VaultObject", null=True, on_delete=models.SET_NULL)
    spent = models.JSONField(default=dict)  # compositions charged, by mechanism name
    commitment = models.JSONField(
        default=dict
    )  # Merkle root over salted leaves, one a unit, of the rows trained on
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    training_seconds = models.FloatField(default=0)
    model_version = TenantForeignKey("modeling.ModelVersion", null=True, on_delete=models.SET_NULL)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["tenant", "public_id"], name="job_public_id"),
            models.CheckConstraint(
                condition=Q(
                    state__in=[
                        "validating_files",
                        "queued",
                        "running",
                        "paused",
                        "succeeded",
                        "failed",
                        "cancelled",
                    ]
                ),
                name="job_state_known",
            ),
            models.CheckConstraint(
                condition=~Q(state="running") | Q(lease_until__isnull=False, epoch__gte=1),
                name="job_running_is_leased",
            ),
            models.CheckConstraint(
                condition=~Q(state__in=["succeeded", "failed", "cancelled"]) | Q(finished_at__isnull=False),
                name="job_end_has_time",
            ),
            models.CheckConstraint(condition=Q(priority__in=[-1, 0, 1]), name="job_priority_known"),
            models.CheckConstraint(
                condition=~Q(state="failed") | Q(error__isnull=False), name="job_failure_has_cause"
            ),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["tenant", "-created_at"], name="job_by_tenant"),
            models.Index(
                fields=["created_at"],
                name="job_open",
                condition=Q(state__in=["validating_files", "queued", "running"]),
            ),
        ]

    def __str__(self) -> str:
        return self.public_id

    @property
    def is_ended(self) -> bool:
        """Whether the job reached a state that it never leaves."""
        return self.state in self.ENDED

    @property
    def is_private(self) -> bool:
        """Whether the job trains under differential privacy."""
        return not self.privacy_off_reason


class JobEvent(TenantOwned):
    """One thing that happened to a job; numbered without gaps, never changed."""

    class Kind(models.TextChoices):
        """What an event tells; clients draw `metrics`, `phase` and `held_out`, and print the rest."""

        MESSAGE = "message"
        STATE = "state"
        PHASE = "phase"
        METRICS = "metrics"
        HELD_OUT = "held_out"
        CHECKPOINT = "checkpoint"

    job = TenantForeignKey(Job, on_delete=models.CASCADE)
    seq = models.PositiveIntegerField()
    at = models.DateTimeField(auto_now_add=True)
    kind = models.CharField(max_length=20, choices=Kind.choices)
    level = models.CharField(max_length=10, default="info")
    message = models.CharField(max_length=500)
    data = models.JSONField(default=dict)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["tenant", "job", "seq"], name="event_seq"),
            models.CheckConstraint(condition=Q(seq__gte=1), name="event_seq_from_one"),
            models.CheckConstraint(
                condition=Q(level__in=["info", "warn", "error"]), name="event_level_known"
            ),
        ]

    def __str__(self) -> str:
        return f"event {self.seq} of {self.job_id}"


class Worker(models.Model):
    """A worker process that says it is alive; operators read it, so it holds no tenant data (job is an opaque uuid)."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=120, unique=True)
    kind = models.CharField(max_length=20)
    host = models.CharField(max_length=120)
    pid = models.PositiveIntegerField()
    heartbeat_at = models.DateTimeField()
    job_id = models.UUIDField(null=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.CheckConstraint(condition=Q(kind__in=["train", "quick"]), name="worker_kind_known")
        ]

    def __str__(self) -> str:
        return self.name


class RememberedAnswer(TenantOwned):
    """The answer to a POST that carried an Idempotency-Key, made in the same transaction as its effect."""

    key = models.CharField(max_length=255)
    path = models.CharField(max_length=200)
    body_digest = models.CharField(max_length=64)
    status = models.PositiveSmallIntegerField(default=0)
    response = models.JSONField(default=dict)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["tenant", "path", "key"], name="remembered_once")
        ]

    def __str__(self) -> str:
        return f"answer to {self.path}"
