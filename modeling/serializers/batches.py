"""Batches and uploads on the wire, in OpenAI's shapes."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from rest_framework import serializers

from modeling.actions.batches import ENDPOINTS
from modeling.models import Batch, Upload, UploadPart

LARGEST_BYTES = 1 << 40
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
        """As sent; our files do not expire, so neither do a batch's."""
        if isinstance(data, dict) and data.get("output_expires_after") is not None:
            raise serializers.ValidationError(
                {"output_expires_after": "Files do not expire here: delete them when they are done with."}
            )
        return super().to_internal_value(data)


class UploadRequest(serializers.Serializer[Any]):
    """POST /v1/uploads."""

    filename = serializers.CharField(max_length=255)
    purpose = serializers.CharField(max_length=20)
    bytes = serializers.IntegerField(min_value=1, max_value=LARGEST_BYTES)
    mime_type = serializers.CharField(max_length=120, allow_blank=True)


class CompleteRequest(serializers.Serializer[Any]):
    """POST /v1/uploads/{id}/complete."""

    part_ids = serializers.ListField(
        child=serializers.CharField(max_length=64), min_length=1, max_length=10_000
    )
    md5 = serializers.RegexField(r"\A[0-9a-fA-F]{32}\Z", required=False, allow_null=True)
    encoding = serializers.CharField(required=False, allow_blank=True, max_length=20)


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


def upload_body(upload: Upload, file: dict[str, Any] | None = None) -> dict[str, Any]:
    """OpenAI's upload object."""
    return {
        "id": upload.public_id,
        "object": "upload",
        "bytes": upload.size_bytes,
        "created_at": _time(upload.created_at),
        "filename": upload.name,
        "purpose": upload.purpose,
        "status": upload.status,
        "expires_at": _time(upload.expires_at),
        "file": file,
    }


def part_body(upload: Upload, part: UploadPart) -> dict[str, Any]:
    """OpenAI's part object."""
    return {
        "id": part.public_id,
        "object": "upload.part",
        "created_at": _time(part.created_at),
        "upload_id": upload.public_id,
    }
