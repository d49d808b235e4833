"""A row of a tenant in every table that has tenants' rows, made from the models alone: a new table comes along."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

from django.apps import apps
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.utils import timezone

from tenants.models import Tenant, User
from tenants.scope import TenantForeignKey, TenantOwned, scope

# What a check asks for, by model and field.
ASKED = {
    ("Endpoint", "name"): "planted",
    ("PrivacyAccount", "delta"): 0.5,
    ("PrivacyEntry", "partition"): "train",
    ("VersionChange", "mode"): "append",
    ("LegalHold", "released_at"): timezone.now(),  # one that stands would keep everything
    ("TenantErasure", "state"): "withdrawn",
    ("Tombstone", "kind"): "object",
    ("Tombstone", "reference"): str(uuid.UUID(int=1)),
}
PLAIN: list[tuple[type, Any]] = [
    (models.BinaryField, b"\x00planted"),
    (models.UUIDField, uuid.UUID(int=1)),
    (models.BooleanField, False),
    (models.DateTimeField, timezone.now() + timedelta(days=1)),
    (models.DateField, timezone.now().date()),
    (models.JSONField, {"planted": 1}),
    (ArrayField, []),
    (models.IntegerField, 1),
    (models.FloatField, 1.0),
    (models.DecimalField, 1),
    (models.CharField, "planted"),
]


def plant(tenant: Tenant, user: User) -> int:
    """Make them; returns how many tables there are."""
    owned = [model for model in apps.get_models() if issubclass(model, TenantOwned)]
    made: dict[type[models.Model], Any] = {}
    with scope(tenant):
        for model in owned:
            _make(model, tenant, user, made)
    return len(owned)


def _make(model: Any, tenant: Tenant, user: User, made: dict[type[models.Model], Any]) -> Any:
    if model not in made:
        made[model] = model.objects.of(tenant).first()
    if made[model] is None:
        values = {}
        for field in model._meta.local_fields:
            asked = (model.__name__, field.name)
            if asked in ASKED:
                values[field.name] = ASKED[asked]
            elif field.name not in ("id", "tenant") and not (field.null or field.has_default()):
                values[field.name] = _value(field, tenant, user, made)
        made[model] = model.objects.of(tenant).create(**values)
    return made[model]


def _value(field: Any, tenant: Tenant, user: User, made: dict[type[models.Model], Any]) -> Any:
    if isinstance(field, TenantForeignKey):
        return _make(field.related_model, tenant, user, made)
    if isinstance(field, models.ForeignKey):
        return user
    if field.choices:
        return field.choices[0][0]
    value = next(value for kind, value in PLAIN if isinstance(field, kind))
    if value == "planted":
        value = f"planted {tenant.pk.hex}"  # some are unique in the whole installation
    return value[: field.max_length] if isinstance(value, str | bytes) else value
