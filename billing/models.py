"""Subscription, UsageEvent and the Stripe events as they came in."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from saas.lib.db import uuid7
from tenants.scope import TenantOwned


class Subscription(TenantOwned):
    """What a tenant has ordered, as Stripe last told us."""

    class Status(models.TextChoices):
        """Stripe's words; `none` is the Free plan without a customer at Stripe."""

        NONE = "none", _("none")
        ACTIVE = "active", _("active")
        TRIALING = "trialing", _("trial")
        PAST_DUE = "past_due", _("past due")
        UNPAID = "unpaid", _("unpaid")
        CANCELED = "canceled", _("cancelled")
        INCOMPLETE = "incomplete", _("incomplete")

    plan = models.CharField(max_length=20, default="free")
    status = models.CharField(max_length=12, choices=Status.choices, default=Status.NONE)
    stripe_customer = models.CharField(max_length=64, blank=True)
    stripe_subscription = models.CharField(max_length=64, blank=True)
    period_end_at = models.DateTimeField(null=True)
    past_due_since = models.DateTimeField(null=True)
    cancel_at_period_end = models.BooleanField(default=False)
    as_of = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["tenant"], name="one_subscription"),
        ]


class UsageEvent(TenantOwned):
    """Something used, once per (request, kind); its id is the identifier of Stripe's meter event. Append only."""

    class Kind(models.TextChoices):
        """What is metered."""

        TRAINING_SECONDS = "training_seconds", _("training seconds")
        PREDICTIONS = "predictions", _("predictions")
        TOKENS = "tokens", _("tokens")
        STORED_BYTE_HOURS = "stored_byte_hours", _("stored byte-hours")

    kind = models.CharField(max_length=20, choices=Kind.choices)
    quantity = models.DecimalField(max_digits=24, decimal_places=3)
    request_id = models.CharField(max_length=80)
    at = models.DateTimeField()
    reported_at = models.DateTimeField(null=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["tenant", "request_id", "kind"], name="usage_once"),
        ]
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["tenant", "at"], name="usage_by_month"),
            models.Index(fields=["at"], name="usage_unreported", condition=models.Q(reported_at=None)),
        ]


class StripeEvent(models.Model):
    """A verified webhook event, stored once and processed from here; holds ids of Stripe only."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    event_id = models.CharField(max_length=80, unique=True)
    kind = models.CharField(max_length=80)
    customer = models.CharField(max_length=64, blank=True)
    object_id = models.CharField(max_length=80, blank=True)
    happened_at = models.DateTimeField()
    received_at = models.DateTimeField(auto_now_add=True)
    processed_at = models.DateTimeField(null=True)
    attempts = models.PositiveIntegerField(default=0)
    error = models.CharField(max_length=300, blank=True)

    def __str__(self) -> str:
        return self.event_id
