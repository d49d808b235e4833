"""What each model answered, five minutes a row: how many requests, how fast, how much; nothing of their content."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models

from tenants.scope import TenantOwned

MINUTES = 5
KEPT_DAYS = 35


# The columns that are counts; `seconds` and the two histograms are added up in their own ways.
COUNTS = (
    "answered", "client_errors", "rejected", "server_errors", "abandoned", "predictions", "tokens_in", "tokens_out",
)  # fmt: skip


@dataclass(slots=True, kw_only=True)
class Answers:
    """What a model answered, in memory: the gateway writes rows from it, the pages sum rows into it."""

    answered: int = 0
    client_errors: int = 0
    rejected: int = 0
    server_errors: int = 0
    abandoned: int = 0
    predictions: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    latency: list[int] = field(default_factory=list)
    first_token: list[int] = field(default_factory=list)


class ServedMinutes(TenantOwned):
    """Five minutes of one model on one route, as one process counted them.

    A process writes its own rows, each time with all it has counted so far: writing one twice changes nothing.
    `latency` counts the answered requests by serving.latency.BOUNDS, `first_token` those of streams; [] for none.
    """

    model = models.CharField(max_length=200)  # the name that answered: a version's, or a base model's
    route = models.CharField(max_length=16)  # classify | recommend | embeddings | chat | batch | playground
    at = models.DateTimeField()  # the start of the five minutes
    writer = models.CharField(max_length=24)
    answered = models.BigIntegerField(default=0)
    client_errors = models.BigIntegerField(default=0)
    rejected = models.BigIntegerField(default=0)  # 429: limits, or a full queue
    server_errors = models.BigIntegerField(default=0)
    abandoned = models.BigIntegerField(default=0)  # the client left first
    predictions = models.BigIntegerField(default=0)
    tokens_in = models.BigIntegerField(default=0)
    tokens_out = models.BigIntegerField(default=0)
    seconds = models.FloatField(default=0)  # of the answered requests, together
    latency = ArrayField(models.BigIntegerField(), default=list)
    first_token = ArrayField(models.BigIntegerField(), default=list)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["tenant", "model", "route", "at", "writer"], name="served_once"),
        ]
        indexes: ClassVar[list[models.Index]] = [models.Index(fields=["at"], name="served_old")]

    def __str__(self) -> str:
        return f"{self.route} {self.at}"
