"""How long finished runs took beside what their plans said: public facts of a deployment, about no tenant."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q

from saas.lib.db import uuid7


class Pace(models.Model):
    """One finished run: its method, the worker's device, the seconds its plan said and the seconds it took, rounded."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    method = models.CharField(max_length=20)
    device = models.CharField(max_length=20)
    planned_seconds = models.FloatField()
    seconds = models.FloatField()
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.CheckConstraint(condition=Q(planned_seconds__gt=0, seconds__gt=0), name="pace_takes_time")
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["method", "device", "-at"], name="pace_newest")
        ]

    def __str__(self) -> str:
        return f"{self.method} on {self.device}: {self.seconds:g} s"
