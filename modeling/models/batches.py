"""Batch, a file of requests answered within a day, and BatchSlice, the sealed answers of some of its lines."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import ClassVar

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from modeling.models.datasets import File
from saas.lib.db import public_id
from tenants.scope import TenantForeignKey, TenantOwned

WINDOW = timedelta(hours=24)


def batch_id() -> str:
    """The public id of a batch."""
    return public_id("batch_")


def window_end() -> datetime:
    """When a batch made now expires."""
    return timezone.now() + WINDOW


class Batch(TenantOwned):
    """Requests of one file. `offset` and `line` say how far the input is answered; they move with the answers."""

    class State(models.TextChoices):
        """OpenAI's states of a batch."""

        VALIDATING = "validating", _("checking")
        IN_PROGRESS = "in_progress", _("in progress")
        FINALIZING = "finalizing", _("writing the files")
        CANCELLING = "cancelling", _("cancelling")
        COMPLETED = "completed", _("completed")
        FAILED = "failed", _("failed")
        EXPIRED = "expired", _("expired")
        CANCELLED = "cancelled", _("cancelled")

    OPEN: ClassVar[tuple[str, ...]] = (
        State.VALIDATING,
        State.IN_PROGRESS,
        State.FINALIZING,
        State.CANCELLING,
    )

    public_id = models.CharField(max_length=40, default=batch_id, editable=False)
    file = TenantForeignKey(File, on_delete=models.PROTECT)
    endpoint = models.CharField(max_length=40)  # the path of a hot route
    metadata = models.JSONField(default=dict)
    state = models.CharField(max_length=12, choices=State.choices, default=State.VALIDATING)
    ends_as = models.CharField(max_length=12, choices=State.choices, default=State.COMPLETED)
    errors = models.JSONField(default=list)  # why the file was refused: [{code, line, message, param}]
    total = models.PositiveIntegerField(default=0)
    completed = models.PositiveIntegerField(default=0)
    failed = models.PositiveIntegerField(default=0)
    offset = models.BigIntegerField(default=0)  # bytes of the input that are answered
    line = models.PositiveIntegerField(default=0)  # lines of the input that are answered, blank ones too
    used = models.JSONField(
        default=dict
    )  # units answered so far, by kind of usage; billed at plans.BATCH_SHARE
    slices = models.PositiveIntegerField(default=0)
    output_file = TenantForeignKey(File, null=True, on_delete=models.PROTECT)
    error_file = TenantForeignKey(File, null=True, on_delete=models.PROTECT)
    epoch = models.PositiveIntegerField(
        default=0
    )  # counts the claims: who holds an older one may write nothing
    tries = models.PositiveSmallIntegerField(default=0)  # claims since the last progress
    lease_until = models.DateTimeField(null=True)
    wait_until = models.DateTimeField(
        null=True
    )  # nobody takes it before: no engine, or the tenant is suspended
    served_at = models.DateTimeField(null=True)
    created_by = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(default=window_end)
    in_progress_at = models.DateTimeField(null=True)
    finalizing_at = models.DateTimeField(null=True)
    cancelling_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["tenant", "public_id"], name="batch_public_id"),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(
                fields=["served_at"],
                name="batch_open",
                condition=models.Q(state__in=("validating", "in_progress", "finalizing", "cancelling")),
            ),
        ]

    def __str__(self) -> str:
        return self.public_id


class BatchSlice(TenantOwned):
    """Answers of consecutive lines in one sealed object: output lines first, then error lines."""

    batch = TenantForeignKey(Batch, on_delete=models.CASCADE)
    number = models.PositiveIntegerField()
    output_bytes = models.BigIntegerField()  # where the error lines begin
    object = TenantForeignKey("tenants.VaultObject", null=True, on_delete=models.PROTECT)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["tenant", "batch", "number"], name="batch_slice_number"),
        ]
