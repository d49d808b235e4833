"""How long classes of data are kept, and legal holds that keep what would otherwise go."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from modeling.models.datasets import Dataset, File
from saas.lib.db import public_id
from tenants.scope import TenantForeignKey, TenantOwned


def hold_id() -> str:
    """The public id of a legal hold."""
    return public_id("hold-")


class RetentionRule(TenantOwned):
    """Data of one class is deleted `days` after it came; without a rule it stays until somebody deletes it."""

    class Kind(models.TextChoices):
        """What a rule is about."""

        TRAINING = "training", _("Records of people")
        CATALOGUE = "catalogue", _("Catalogues")
        VERSIONS = "versions", _("Former versions of datasets")
        BATCH = "batch", _("Requests and answers of batches")

    kind = models.CharField(max_length=12, choices=Kind.choices)
    days = models.PositiveIntegerField()
    changed_at = models.DateTimeField(auto_now=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["tenant", "kind"], name="one_retention_rule_per_kind"),
        ]

    def __str__(self) -> str:
        return f"{self.kind}: {self.days} days"


class LegalHold(TenantOwned):
    """While it stands, nothing of what it covers is deleted, erased or expires. Neither file nor dataset: all data."""

    public_id = models.CharField(max_length=40, default=hold_id, editable=False)
    file = TenantForeignKey(File, null=True, on_delete=models.PROTECT)
    dataset = TenantForeignKey(Dataset, null=True, on_delete=models.PROTECT)
    reason = models.CharField(max_length=300)
    placed_by = models.CharField(max_length=200)
    placed_at = models.DateTimeField(auto_now_add=True)
    released_by = models.CharField(max_length=200, blank=True)
    released_at = models.DateTimeField(null=True)
    release_reason = models.CharField(max_length=300, blank=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["tenant", "public_id"], name="legal_hold_public_id"),
            models.CheckConstraint(
                condition=models.Q(file=None) | models.Q(dataset=None), name="legal_hold_of_one_thing"
            ),
        ]

    def __str__(self) -> str:
        return self.public_id
