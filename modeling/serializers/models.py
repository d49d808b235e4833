"""Models and endpoints on the wire."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from modeling.core.bases import BASES
from modeling.models import Endpoint, ModelVersion

# When the base models' revisions were reviewed; OpenAI's shape wants a time for every model.
BASES_CREATED = 1_763_683_200
OWNER_OF_BASES = "cloister"


class EndpointRequest(serializers.Serializer[Any]):
    """POST /v1/endpoints: create the endpoint or move it."""

    name = serializers.CharField(max_length=63)
    model = serializers.CharField(max_length=200)


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
    return {
        "id": version.name,
        "object": "model",
        "created": int(version.created_at.timestamp()),
        "owned_by": version.tenant.slug,
        "base": version.base,
        "task": version.task,
        "method": version.method,
        "job": version.job.public_id,
        "privacy": version.card.get("privacy", {}),
        "metrics": version.card.get("metrics", {}),
    }


def endpoint_body(endpoint: Endpoint) -> dict[str, Any]:
    """An endpoint and the version that answers."""
    return {
        "id": endpoint.name,
        "object": "endpoint",
        "name": endpoint.name,
        "model": endpoint.version.name,
        "created_at": int(endpoint.created_at.timestamp()),
    }
