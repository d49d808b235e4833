"""The JSON shapes of /v1/files and /v1/datasets for the OpenAPI document."""

from __future__ import annotations

from typing import Any


def shape(name: str, properties: dict[str, Any], *, optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """An object of the API: its properties are required but for the optional ones."""
    required = [key for key in properties if key not in optional]
    kind = {"type": "string", "enum": [name]}
    return {"type": "object", "properties": {"object": kind} | properties, "required": ["object", *required]}


def listing(item: dict[str, Any]) -> dict[str, Any]:
    """A page of such objects."""
    return {
        "type": "object",
        "properties": {
            "object": {"type": "string", "enum": ["list"]},
            "data": {"type": "array", "items": item},
            "first_id": {"type": ["string", "null"]},
            "last_id": {"type": ["string", "null"]},
            "has_more": {"type": "boolean"},
        },
        "required": ["object", "data", "first_id", "last_id", "has_more"],
    }


_TEXT = {"type": "string"}
_NUMBER = {"type": "integer"}
_MAYBE_TEXT = {"type": ["string", "null"]}
_MAYBE_NUMBER = {"type": ["integer", "null"]}
_ERROR = {
    "type": "object",
    "properties": {"line": _NUMBER, "column": _NUMBER, "rule": _TEXT, "fix": _TEXT},
    "required": ["line", "column", "rule", "fix"],
}
PURPOSE = {"type": "string", "enum": ["fine-tune", "user_data", "batch"]}
_PURPOSES = {"type": "string", "enum": ["fine-tune", "user_data", "batch", "batch_output"]}
FILE = shape(
    "file",
    {
        "id": _TEXT,
        "bytes": _NUMBER,
        "created_at": _NUMBER,
        "expires_at": _MAYBE_NUMBER,
        "filename": _TEXT,
        "purpose": _PURPOSES,
        "status": {"type": "string", "enum": ["uploaded", "processed", "error"]},
        "status_details": _MAYBE_TEXT,
        "errors": {"type": "array", "items": _ERROR},
        "error_count": _NUMBER,
        "dataset": _MAYBE_TEXT,
        "rows": _MAYBE_NUMBER,
        "units": _MAYBE_NUMBER,
    },
    optional=("errors", "error_count", "dataset", "rows", "units"),
)
FILES = listing(FILE)
DELETED = shape("file", {"id": _TEXT, "deleted": {"type": "boolean"}})
UPLOAD = {
    "multipart/form-data": {
        "type": "object",
        "properties": {
            "file": {"type": "string", "format": "binary"},
            "purpose": PURPOSE,
            "encoding": _TEXT,
        },
        "required": ["file", "purpose"],
    }
}
_VERSION = {
    "type": "object",
    "properties": {
        "number": _NUMBER,
        "file": _MAYBE_TEXT,
        "created_at": _NUMBER,
        "rows": _NUMBER,
        "units": _NUMBER,
        "unit": _TEXT,
        "error_count": _NUMBER,
        "errors_by_rule": {"type": "object", "additionalProperties": _NUMBER},
    },
}
DATASET = shape(
    "dataset",
    {
        "id": _TEXT,
        "name": _TEXT,
        "created_at": _NUMBER,
        "pack": _TEXT,
        "task": _MAYBE_TEXT,
        "columns": {"type": "object", "additionalProperties": _TEXT},
        "unit": _TEXT,
        "unit_fixed": {"type": "boolean"},
        "is_catalogue": {"type": "boolean"},
        "versions": {"type": "array", "items": _VERSION},
    },
)
DATASETS = listing(DATASET)
