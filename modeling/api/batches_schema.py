"""The JSON shapes of /v1/batches for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from modeling.api.files_schema import listing, shape
from modeling.models import Batch

_TEXT = {"type": "string"}
_NUMBER = {"type": "integer"}
_MAYBE_TEXT = {"type": ["string", "null"]}
_MAYBE_NUMBER = {"type": ["integer", "null"]}
_TIMES = (
    "in_progress_at",
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
)
_ERROR: dict[str, Any] = {
    "type": "object",
    "properties": {"code": _TEXT, "line": _MAYBE_NUMBER, "message": _TEXT, "param": _MAYBE_TEXT},
    "required": ["code", "line", "message", "param"],
}
_ERRORS: dict[str, Any] = {
    "type": ["object", "null"],
    "properties": {
        "object": {"type": "string", "enum": ["list"]},
        "data": {"type": "array", "items": _ERROR},
    },
}
_COUNTS: dict[str, Any] = {
    "type": "object",
    "properties": {"total": _NUMBER, "completed": _NUMBER, "failed": _NUMBER},
    "required": ["total", "completed", "failed"],
}
BATCH = shape(
    "batch",
    {
        "id": _TEXT,
        "endpoint": _TEXT,
        "errors": _ERRORS,
        "input_file_id": _TEXT,
        "completion_window": {"type": "string", "enum": ["24h"]},
        "status": {"type": "string", "enum": list(Batch.State.values)},
        "output_file_id": _MAYBE_TEXT,
        "error_file_id": _MAYBE_TEXT,
        "created_at": _NUMBER,
        "expires_at": _NUMBER,
        **dict.fromkeys(_TIMES, _MAYBE_NUMBER),
        "request_counts": _COUNTS,
        "metadata": {"type": ["object", "null"], "additionalProperties": _TEXT},
    },
)
BATCHES = listing(BATCH)
