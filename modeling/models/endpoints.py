"""Endpoints: names that a tenant calls, each pointing at one model version, and the history of where they pointed."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import Q

from tenants.scope import TenantForeignKey, TenantOwned


class Endpoint(TenantOwned):
    """A name that answers `model: "<name>"`; unique in the tenant, never like a model's own name."""

    name = models.CharField(max_length=64)
    version = TenantForeignKey("modeling.ModelVersion", on_delete=models.PROTECT)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["tenant", "name"], name="endpoint_name"),
            models.CheckConstraint(
                condition=Q(name__regex=r"^[a-z0-9][a-z0-9-]{0,62}$"), name="endpoint_name_form"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class EndpointChange(TenantOwned):
    """One move of an endpoint to a version: what a rollback goes back to."""

    endpoint = TenantForeignKey(Endpoint, on_delete=models.CASCADE)
    version = TenantForeignKey("modeling.ModelVersion", on_delete=models.PROTECT)
    at = models.DateTimeField(auto_now_add=True)
    actor = models.CharField(max_length=200)

    class Meta:
        indexes: ClassVar[list[models.Index]] = [
            models.Index(fields=["tenant", "endpoint", "-at"], name="endpoint_history")
        ]

    def __str__(self) -> str:
        return f"endpoint change {self.at}"
