"""Which tables hold keys: their backups are made apart from those of the data, and expire after 30 days."""

from __future__ import annotations

from django.apps import apps
from django.db.models import BinaryField, Model

from tenants.models import Tombstone


def key_tables() -> list[str]:
    """The tables whose rows hold wrapped keys, and the tombstones, which say of them what was destroyed; sorted."""
    return sorted(
        model._meta.db_table for model in apps.get_models() if model is Tombstone or _holds_keys(model)
    )


def _holds_keys(model: type[Model]) -> bool:
    fields = model._meta.local_fields
    return any(isinstance(field, BinaryField) and field.name.startswith("wrapped") for field in fields)
