"""Models on the wire."""

from __future__ import annotations

from typing import Any

from modeling.core.bases import BASES
from modeling.models import ModelVersion

# When the base models' revisions were reviewed; OpenAI's shape wants a time for every model.
BASES_CREATED = 1_763_683_200
OWNER_OF_BASES = "cloister"
DATA = ("dataset", "version", "content_hash", "rows")  # which data made this model, from its card


def base_body(base_id: str) -> dict[str, Any]:
    """A base model in OpenAI's shape."""
    base = BASES[base_id]
    return {
        "id": base.id,
        "object": "model",
        "created": BASES_CREATED,
        "owned_by": OWNER_OF_BASES,
        "tasks": list(base.tasks),
        "licence": base.licence,
        "name": base.name,
    }


def version_body(version: ModelVersion) -> dict[str, Any]:
    """A tenant's model in OpenAI's shape, with ours beside it."""
    data = version.card.get("data", {})
    return {
        "id": version.name,
        "object": "model",
        "created": int(version.created_at.timestamp()),
        "owned_by": version.tenant.slug,
        "base": version.base,
        "task": version.task,
        "method": version.method,
        "job": version.job.public_id,
        "data": {key: data[key] for key in DATA if key in data},
        "privacy": version.card.get("privacy", {}),
        "metrics": version.card.get("metrics", {}),
    }
