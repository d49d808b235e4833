"""QualityReport: where the sealed quality report of a version is, and who is making it; no number of it is in a row."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from modeling.models.datasets import Dataset, DatasetVersion
from tenants.scope import TenantForeignKey, TenantOwned


class QualityReport(TenantOwned):
    """The claim on measuring one version, and the sealed result. The sweeper sees all tenants' rows: ids only."""

    class State(models.TextChoices):
        """From asked for to there; failed is kept, and can be asked for again."""

        WAITING = "waiting", _("waiting")
        RUNNING = "running", _("running")
        READY = "ready", _("ready")
        FAILED = "failed", _("failed")

    version = TenantForeignKey(DatasetVersion, on_delete=models.CASCADE)
    compared = TenantForeignKey(
        Dataset, null=True, on_delete=models.CASCADE
    )  # whose rows are searched for here
    object = TenantForeignKey("tenants.VaultObject", null=True, on_delete=models.PROTECT)
    state = models.CharField(max_length=8, choices=State.choices, default=State.WAITING)
    percent = models.PositiveSmallIntegerField(default=0)
    epoch = models.PositiveIntegerField(default=0)  # raised by each asking: an overtaken run keeps nothing
    attempts = models.PositiveSmallIntegerField(default=0)
    lease_until = models.DateTimeField(null=True)
    asked_at = models.DateTimeField(auto_now_add=True)
    done_at = models.DateTimeField(null=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["tenant", "version"], name="one_quality_report"),
        ]
