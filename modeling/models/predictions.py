"""The prediction log, for those who asked for one: masked inputs and answers, sealed under a key of their day."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from modeling.models.endpoints import Endpoint
from tenants.scope import TenantForeignKey, TenantOwned


class PredictionKey(TenantOwned):
    """The key of one day's entries of an endpoint (none: of models called by their own name), wrapped by the tenant's.

    Deleting the row makes that day's entries unreadable wherever a copy of them lies without it.
    """

    endpoint = TenantForeignKey(Endpoint, on_delete=models.CASCADE, null=True)
    day = models.DateField()
    wrapped = models.BinaryField()

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(
                fields=["tenant", "endpoint", "day"], nulls_distinct=False, name="prediction_key_once"
            )
        ]

    def __str__(self) -> str:
        return f"key of predictions on {self.day}"

    @property
    def place(self) -> str:
        """What the key is bound to when it is wrapped."""
        return f"cloister/prediction-key/v1|{self.tenant_id}|{self.pk}"


class Prediction(TenantOwned):
    """One logged request. Input and answer are in `sealed` only, and masked before they were sealed."""

    key = TenantForeignKey(PredictionKey, on_delete=models.CASCADE)
    public_id = models.CharField(max_length=64)
    at = models.DateTimeField()
    request_id = models.CharField(max_length=64)
    route = models.CharField(max_length=32)
    model = models.CharField(max_length=200)  # the name of the version, or of the base model, that answered
    milliseconds = models.PositiveIntegerField()
    sealed = models.BinaryField()

    class Meta:
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["tenant", "key", "-id"], name="prediction_newest"),
            models.Index(fields=["tenant", "at"], name="prediction_age"),
        ]
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["tenant", "public_id"], name="prediction_public_id")
        ]

    def __str__(self) -> str:
        return self.public_id
