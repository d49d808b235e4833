"""Model versions: what a job leaves behind, an encrypted artefact with its card."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q

from saas.lib.db import base62
from tenants.scope import TenantForeignKey, TenantOwned


def short_id() -> str:
    """The last part of a model's name: eight base62 characters."""
    return base62(8)


class ModelVersion(TenantOwned):
    """One trained model; its weights are one vault object, destroyed when the version is deleted."""

    class State(models.TextChoices):
        """A deleted version keeps its row, its card and its place in the ledger."""

        READY = "ready"
        DELETED = "deleted"

    name = models.CharField(max_length=200)  # ft:<base>:<tenant slug>:<suffix>:<short id>
    short_id = models.CharField(max_length=8, default=short_id)
    job = TenantForeignKey("modeling.Job", on_delete=models.PROTECT)
    base = models.CharField(max_length=40)
    task = models.CharField(max_length=20)
    method = models.CharField(max_length=20)
    config = models.JSONField(default=dict)
    card = models.JSONField(default=dict)
    receipt = models.JSONField(null=True)  # DSSE envelope over the in-toto statement of the training run
    object = TenantForeignKey("tenants.VaultObject", null=True, on_delete=models.SET_NULL)
    state = models.CharField(max_length=10, choices=State.choices, default=State.READY)
    created_at = models.DateTimeField(auto_now_add=True)
    deleted_at = models.DateTimeField(null=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["tenant", "name"], name="version_name"),
            models.UniqueConstraint(fields=["tenant", "short_id"], name="version_short_id"),
            models.UniqueConstraint(fields=["tenant", "job"], name="version_one_per_job"),
            models.CheckConstraint(condition=Q(state__in=["ready", "deleted"]), name="version_state_known"),
        ]

    def __str__(self) -> str:
        return self.name
