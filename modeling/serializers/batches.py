"""Batches on the wire, in OpenAI's shapes."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from rest_framework import serializers

from modeling.actions.batches import ENDPOINTS
from modeling.models import Batch

_ENDS = {
    "completed": "completed_at",
    "failed": "failed_at",
    "expired": "expired_at",
    "cancelled": "cancelled_at",
}


class BatchRequest(serializers.Serializer[Any]):
    """POST /v1/batches."""

    input_file_id = serializers.CharField(max_length=64)
    endpoint = serializers.ChoiceField(
        ENDPOINTS, error_messages={"invalid_choice": f"must be one of {', '.join(ENDPOINTS)}."}
    )
    completion_window = serializers.ChoiceField(
        ["24h"], error_messages={"invalid_choice": "must be 24h: batches have no other."}
    )
    metadata = serializers.DictField(
        child=serializers.CharField(allow_blank=True, max_length=512), required=False, allow_null=True
    )

    def to_internal_value(self, data: Any) -> Any:
        """As sent; what a batch writes stays until it is deleted."""
        if isinstance(data, dict) and data.get("output_expires_after") is not None:
            raise serializers.ValidationError(
                {
                    "output_expires_after": "The files of a batch do not expire: delete them when they are done with."
                }
            )
        return super().to_internal_value(data)


def _time(at: datetime | None) -> int | None:
    return None if at is None else int(at.timestamp())


def batch_body(batch: Batch) -> dict[str, Any]:
    """OpenAI's batch object."""
    ends: dict[str, int | None] = dict.fromkeys(_ENDS.values())
    if batch.state in _ENDS:
        ends[_ENDS[batch.state]] = _time(batch.ended_at)
    return {
        "id": batch.public_id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "errors": {"object": "list", "data": batch.errors} if batch.errors else None,
        "input_file_id": batch.file.public_id,
        "completion_window": "24h",
        "status": batch.state,
        "output_file_id": batch.output_file.public_id if batch.output_file else None,
        "error_file_id": batch.error_file.public_id if batch.error_file else None,
        "created_at": _time(batch.created_at),
        "in_progress_at": _time(batch.in_progress_at),
        "expires_at": _time(batch.expires_at),
        "finalizing_at": _time(batch.finalizing_at),
        "completed_at": ends["completed_at"],
        "failed_at": ends["failed_at"],
        "expired_at": ends["expired_at"],
        "cancelling_at": _time(batch.cancelling_at),
        "cancelled_at": ends["cancelled_at"],
        "request_counts": {"total": batch.total, "completed": batch.completed, "failed": batch.failed},
        "metadata": batch.metadata or None,
    }
