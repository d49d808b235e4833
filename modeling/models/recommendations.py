"""What people did with recommended items, as counts that a tenant sends: never who, and never used for training."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy

from tenants.scope import TenantOwned


class RecommendedDay(TenantOwned):
    """How often one thing happened on one day to the items at one place of a model's lists."""

    class Kind(models.TextChoices):
        """What happened to an item."""

        SHOWN = "shown", gettext_lazy("Shown")
        VIEW = "view", gettext_lazy("Viewed")
        CLICK = "click", gettext_lazy("Clicked")
        CART = "cart", gettext_lazy("In the cart")
        PURCHASE = "purchase", gettext_lazy("Purchased")
        DISMISS = "dismiss", gettext_lazy("Dismissed")

    model = models.CharField(max_length=200)  # the name of the version that answered
    endpoint = models.CharField(max_length=64, blank=True)  # "" for the model's own name
    day = models.DateField()  # in UTC
    kind = models.CharField(max_length=10, choices=Kind)
    position = models.PositiveSmallIntegerField()  # from 1; 0 for those behind the fiftieth
    count = models.BigIntegerField(default=0)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["tenant", "model", "endpoint", "day", "kind", "position"], name="recommended_day_once"
            ),
            models.CheckConstraint(
                condition=Q(kind__in=["shown", "view", "click", "cart", "purchase", "dismiss"]),
                name="recommended_kind_known",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} on {self.day}"


class CountedEvent(TenantOwned):
    """That an event was counted, for as long as its repetition is believed: a keyed digest that tells nobody what."""

    digest = models.BinaryField(max_length=16)
    day = models.DateField()

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["tenant", "digest"], name="counted_event_once"),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["tenant", "day"], name="counted_event_old"),
        ]

    def __str__(self) -> str:
        return f"event of {self.day}"
