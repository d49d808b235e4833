"""Endpoints: names that a tenant calls, who answers to each, and the history of what answered when."""

from __future__ import annotations

from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy

from tenants.scope import TenantForeignKey, TenantOwned


class PersonalData(models.TextChoices):
    """What happens to personal data in the texts of a request, before the model sees them."""

    OFF = "off", gettext_lazy("Left as it is")
    NOTE = "note", gettext_lazy("Noted in the answer")
    MASK = "mask", gettext_lazy("Masked")
    BLOCK = "block", gettext_lazy("Request refused")


class Ruled(TenantOwned):
    """Rules for the texts of requests; out of the box nothing of them is looked through and nothing kept."""

    personal_data = models.CharField(max_length=8, choices=PersonalData, default=PersonalData.OFF)
    personal_kinds = models.JSONField(
        default=dict
    )  # {kind: off | report | mask | block} beside `personal_data`
    log_days = models.PositiveSmallIntegerField(default=0)  # 0: nothing is kept

    class Meta:
        abstract = True
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.CheckConstraint(
                condition=Q(personal_data__in=PersonalData.values), name="%(class)s_rule_known"
            ),
            models.CheckConstraint(condition=Q(log_days__lte=365), name="%(class)s_kept_a_year_at_most"),
        ]


class DefaultRules(Ruled):
    """A tenant's rules for models that are called by their own name; a tenant without this row keeps nothing."""

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            *Ruled.Meta.constraints,
            models.UniqueConstraint(fields=["tenant"], name="default_rules_once"),
        ]

    def __str__(self) -> str:
        return "default rules"


class Traffic(Ruled):
    """Who answers: a version, a canary for `canary_percent` % of the requests, and a shadow that only listens."""

    version = TenantForeignKey("modeling.ModelVersion", on_delete=models.PROTECT)
    canary = TenantForeignKey("modeling.ModelVersion", on_delete=models.PROTECT, null=True)
    canary_percent = models.PositiveSmallIntegerField(default=0)
    shadow = TenantForeignKey("modeling.ModelVersion", on_delete=models.PROTECT, null=True)

    class Meta:
        abstract = True
        constraints: ClassVar[list[models.BaseConstraint]] = [
            *Ruled.Meta.constraints,
            models.CheckConstraint(
                condition=Q(canary=None, canary_percent=0)
                | Q(canary__isnull=False, canary_percent__gte=1, canary_percent__lte=99),
                name="%(class)s_canary_share",
            ),
        ]


class Endpoint(Traffic):
    """A name that answers `model: "<name>"`; unique in the tenant, never like a model's own name."""

    name = models.CharField(max_length=64)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            *Traffic.Meta.constraints,
            models.UniqueConstraint(fields=["tenant", "name"], name="endpoint_name"),
            models.CheckConstraint(
                condition=Q(name__regex=r"^[a-z0-9][a-z0-9-]{0,62}$"), name="endpoint_name_form"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class EndpointChange(Traffic):
    """One change of an endpoint, with all that holds after it; `number` counts the endpoint's changes from 1."""

    class Kind(models.TextChoices):
        """What was done."""

        POINT = "point", gettext_lazy("moved")
        SPLIT = "split", gettext_lazy("split")
        SHADOW = "shadow", gettext_lazy("shadow")
        PROMOTE = "promote", gettext_lazy("promoted")
        ROLLBACK = "rollback", gettext_lazy("rolled back")
        RULES = "rules", gettext_lazy("rules")

    endpoint = TenantForeignKey(Endpoint, on_delete=models.CASCADE)
    number = models.PositiveIntegerField()
    kind = models.CharField(max_length=10, choices=Kind, default=Kind.POINT)
    # Of a rollback: the number of the change that it went back to, never itself a rollback.
    restores = models.PositiveIntegerField(null=True)
    at = models.DateTimeField(auto_now_add=True)
    actor = models.CharField(max_length=200)

    class Meta:
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["tenant", "endpoint", "-at"], name="endpoint_history")
        ]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            *Traffic.Meta.constraints,
            models.UniqueConstraint(fields=["tenant", "endpoint", "number"], name="endpoint_change_number"),
        ]

    def __str__(self) -> str:
        return f"endpoint change {self.number}"


class ShadowDay(TenantOwned):
    """What a shadow did on one day beside the version that answered: counts and times, nothing of the requests."""

    endpoint = TenantForeignKey(Endpoint, on_delete=models.CASCADE)
    shadow = TenantForeignKey("modeling.ModelVersion", on_delete=models.PROTECT)
    day = models.DateField()
    requests = models.BigIntegerField(default=0)  # that the shadow answered, too
    compared = models.BigIntegerField(
        default=0
    )  # labels or best items that can be compared: one for each input
    agreed = models.BigIntegerField(default=0)
    failed = models.BigIntegerField(default=0)  # requests that the shadow could not answer
    dropped = models.BigIntegerField(default=0)  # requests that it was not asked, since others were under way
    served_latency = ArrayField(
        models.BigIntegerField(), default=list
    )  # of `requests`, by serving.latency.BOUNDS
    shadow_latency = ArrayField(models.BigIntegerField(), default=list)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["tenant", "endpoint", "shadow", "day"], name="shadow_day_once")
        ]

    def __str__(self) -> str:
        return f"shadow on {self.day}"
