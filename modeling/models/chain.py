"""VersionChange, the making of a dataset's next version; VersionDiff, two versions compared; Erasure of one person."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from modeling.models.datasets import Dataset, DatasetVersion, File
from saas.lib.db import public_id
from tenants.scope import TenantForeignKey, TenantOwned


def erasure_id() -> str:
    """The public id of an erasure."""
    return public_id("erasure-")


class VersionChange(TenantOwned):
    """A version being made in the background: this row is the truth, a message is only a hint. `number` is the
    version's; a change that failed leaves it to the next one."""

    class State(models.TextChoices):
        """Only `running` has an owner."""

        QUEUED = "queued", _("waiting")
        RUNNING = "running", _("being made")
        SUCCEEDED = "succeeded", _("ready")
        FAILED = "failed", _("failed")

    OPEN: ClassVar[tuple[str, ...]] = (State.QUEUED, State.RUNNING)

    dataset = TenantForeignKey(Dataset, on_delete=models.CASCADE)
    base = TenantForeignKey(DatasetVersion, on_delete=models.PROTECT)
    number = models.PositiveIntegerField()
    mode = models.CharField(max_length=10)
    file = TenantForeignKey(File, null=True, on_delete=models.PROTECT)
    key_column = models.CharField(max_length=200, blank=True)  # names a row where no column names a person
    tokens = models.BinaryField(
        default=bytes
    )  # keyed hashes, 16 bytes each, of whom to remove; no name is kept
    state = models.CharField(max_length=10, choices=State.choices, default=State.QUEUED)
    rows_done = models.BigIntegerField(default=0)
    rows_total = models.BigIntegerField(default=0)
    error = models.JSONField(null=True)
    created_by = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    ended_at = models.DateTimeField(null=True)
    epoch = models.PositiveIntegerField(default=0)  # counts the claims: who holds an older one writes nothing
    lease_until = models.DateTimeField(null=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["tenant", "dataset"],
                condition=Q(state__in=["queued", "running"]),
                name="one_open_change",
            ),
            models.CheckConstraint(
                condition=Q(mode__in=["append", "replace", "remove", "mask"]),
                name="version_change_mode_known",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.mode} for version {self.number}"


class VersionDiff(TenantOwned):
    """Two versions compared. `listing` holds places only (kind, lines, handle), never values; an erasure deletes it."""

    dataset = TenantForeignKey(Dataset, on_delete=models.CASCADE)
    first = TenantForeignKey(DatasetVersion, on_delete=models.CASCADE)
    second = TenantForeignKey(DatasetVersion, on_delete=models.CASCADE)
    found = models.JSONField(null=True)  # counts; null while it is worked out
    listing = models.BinaryField(default=bytes)
    lease_until = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["tenant", "first", "second"], name="one_diff_of_two_versions"),
        ]

    def __str__(self) -> str:
        return f"diff of {self.first_id} and {self.second_id}"


class Erasure(TenantOwned):
    """One person was erased. `person` is a keyed hash that only somebody who knows the name, in this tenant, can
    work out again; nothing else tells who it was."""

    public_id = models.CharField(max_length=40, default=erasure_id, editable=False)
    dataset = TenantForeignKey(Dataset, on_delete=models.PROTECT)
    person = models.CharField(max_length=64)
    reached = models.JSONField(default=list)  # [{dataset, rows, versions}]
    models_told = models.JSONField(
        default=list
    )  # models that may have learnt from the person: see actions/erasures.py
    open_jobs = models.JSONField(default=list)  # runs that had the rows in memory at that moment
    certificate = models.JSONField(null=True)  # DSSE envelope, signed like a receipt
    created_by = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["tenant", "public_id"], name="erasure_public_id"),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["tenant", "dataset"], name="erasure_by_dataset"),
        ]

    def __str__(self) -> str:
        return self.public_id
