"""A tenant's own choice of what is done with personal data in uploads; without a row the vertical's holds."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from tenants.scope import TenantOwned


class PersonalPolicy(TenantOwned):
    """Actions by kind, and which columns are looked through beside free text; see core/personal_policy.py."""

    entities = models.JSONField(default=dict)  # {kind: off | report | mask | block}
    columns = models.CharField(max_length=4, default="text")  # text | all
    changed_at = models.DateTimeField(auto_now=True)
    changed_by = models.CharField(max_length=200, blank=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["tenant"], name="personal_policy_once"),
            models.CheckConstraint(
                condition=models.Q(columns__in=("text", "all")), name="personal_policy_columns"
            ),
        ]

    def __str__(self) -> str:
        return "personal data policy"
