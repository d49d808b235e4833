"""The JSON shapes of /v1/uploads for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from modeling.api.files_schema import FILE, PURPOSE, listing, shape
from modeling.models import Upload

_TEXT = {"type": "string"}
_NUMBER = {"type": "integer"}
_MAYBE_NUMBER = {"type": ["integer", "null"]}
_PART: dict[str, Any] = {
    "id": _TEXT,
    "created_at": _NUMBER,
    "upload_id": _TEXT,
    "part_number": _MAYBE_NUMBER,
}
_UPLOAD: dict[str, Any] = {
    "id": _TEXT,
    "bytes": _NUMBER,
    "created_at": _NUMBER,
    "filename": _TEXT,
    "purpose": PURPOSE,
    "status": {"type": "string", "enum": list(Upload.Status.values)},
    "expires_at": _NUMBER,
    "file": {"anyOf": [FILE, {"type": "null"}]},
}
PART = shape("upload.part", _PART)
UPLOAD = shape("upload", _UPLOAD)
UPLOADS = listing(UPLOAD)
PROGRESS = shape(
    "upload",
    _UPLOAD
    | {
        "bytes_received": _NUMBER,
        "part_bytes": _MAYBE_NUMBER,
        "parts": {
            "type": "array",
            "items": shape("upload.part", _PART | {"bytes": _NUMBER, "sha256": _TEXT}),
        },
    },
)
PART_FORM = {
    "multipart/form-data": {
        "type": "object",
        "properties": {
            "data": {"type": "string", "format": "binary"},
            "part_number": {"type": "integer", "minimum": 1, "maximum": 10_000},
            "sha256": {"type": "string", "pattern": "^[0-9a-fA-F]{64}$"},
            "md5": {"type": "string", "pattern": "^[0-9a-fA-F]{32}$"},
        },
        "required": ["data"],
    }
}
