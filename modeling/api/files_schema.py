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
_ERROR: dict[str, Any] = {
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
        "format": _MAYBE_TEXT,
        "reading": {"type": "object", "additionalProperties": _TEXT},
        "read_as": {"type": "object", "additionalProperties": True},
        "errors": {"type": "array", "items": _ERROR},
        "error_count": _NUMBER,
        "dataset": _MAYBE_TEXT,
        "rows": _MAYBE_NUMBER,
        "units": _MAYBE_NUMBER,
        "personal_data": {"type": ["object", "null"], "additionalProperties": True},
    },
    optional=(
        "format",
        "reading",
        "read_as",
        "errors",
        "error_count",
        "dataset",
        "rows",
        "units",
        "personal_data",
    ),
)
FILES = listing(FILE)
_FILE_ERROR = shape("file.error", {"id": _TEXT, **_ERROR["properties"]})
_ERROR_LIST = listing(_FILE_ERROR)
ERRORS = _ERROR_LIST | {
    "properties": _ERROR_LIST["properties"]
    | {"error_count": _NUMBER, "errors_by_rule": {"type": "object", "additionalProperties": _NUMBER}},
    "required": [*_ERROR_LIST["required"], "error_count", "errors_by_rule"],
}
DELETED = shape("file", {"id": _TEXT, "deleted": {"type": "boolean"}})
DATASET_DELETED = shape("dataset", {"id": _TEXT, "deleted": {"type": "boolean"}})
UPLOAD = {
    "multipart/form-data": {
        "type": "object",
        "properties": {
            "file": {"type": "string", "format": "binary"},
            "purpose": PURPOSE,
            "encoding": _TEXT,
            "delimiter": _TEXT,
            "quote": _TEXT,
            "format": {"type": "string", "enum": ["csv", "jsonl", "parquet"]},
            "personal_data": {
                "type": "string",
                "description": "What is done with personal data in this file, where it differs from your policy: off, "
                "report, mask or block for everything, or a JSON object with entities and columns.",
            },
            "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
            "expires_after[seconds]": {"type": "integer", "minimum": 3600, "maximum": 2592000},
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
        "mode": _TEXT,
        "content_hash": _TEXT,
        "rows": _NUMBER,
        "units": _NUMBER,
        "unit": _TEXT,
        "error_count": _NUMBER,
        "errors_by_rule": {"type": "object", "additionalProperties": _NUMBER},
    },
}
_GUESS = {
    "type": "object",
    "properties": {"column": _TEXT, "role": _TEXT, "reason": _TEXT},
    "required": ["column", "role", "reason"],
}
DATASET = shape(
    "dataset",
    {
        "id": _TEXT,
        "name": _TEXT,
        "created_at": _NUMBER,
        "pack": _TEXT,
        "task": _MAYBE_TEXT,
        "columns": {
            "type": "object",
            "additionalProperties": {"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]},
        },
        "declared": {"type": "object", "additionalProperties": {"type": "object"}},
        "guesses": {"type": "array", "items": _GUESS},
        "unit": _TEXT,
        "unit_fixed": {"type": "boolean"},
        "is_catalogue": {"type": "boolean"},
        "versions": {"type": "array", "items": _VERSION},
    },
)
DATASETS = listing(DATASET)
