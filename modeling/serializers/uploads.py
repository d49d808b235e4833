"""Uploads on the wire: OpenAI's shapes, and what resuming needs beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rest_framework import serializers

from modeling.actions.declarations import FIELDS
from modeling.actions.files import Announced
from modeling.actions.upload_parts import PART_BYTES_MOST, KnownPart
from modeling.actions.uploading import Whole
from modeling.models import Upload, UploadPart

LARGEST_BYTES = 1 << 40
KEEP_SECONDS_LEAST, KEEP_SECONDS_MOST = 3600, 30 * 24 * 3600


class ExpiresAfter(serializers.Serializer[Any]):
    """When a file is to be deleted, as OpenAI has it."""

    anchor = serializers.ChoiceField(
        ["created_at"], error_messages={"invalid_choice": "must be created_at: there is no other anchor."}
    )
    seconds = serializers.IntegerField(min_value=KEEP_SECONDS_LEAST, max_value=KEEP_SECONDS_MOST)


class UploadRequest(serializers.Serializer[Any]):
    """POST /v1/uploads."""

    filename = serializers.CharField(max_length=255)
    purpose = serializers.CharField(max_length=20)
    bytes = serializers.IntegerField(min_value=1, max_value=LARGEST_BYTES)
    mime_type = serializers.CharField(max_length=120, allow_blank=True)
    expires_after = ExpiresAfter(required=False, allow_null=True)
    part_bytes = serializers.IntegerField(
        min_value=1, max_value=PART_BYTES_MOST, required=False, allow_null=True
    )


class CompleteRequest(serializers.Serializer[Any]):
    """POST /v1/uploads/{id}/complete."""

    part_ids = serializers.ListField(
        child=serializers.CharField(max_length=64), min_length=1, max_length=10_000
    )
    md5 = serializers.RegexField(r"\A[0-9a-fA-F]{32}\Z", required=False, allow_null=True)
    sha256 = serializers.RegexField(r"\A[0-9a-fA-F]{64}\Z", required=False, allow_null=True)
    encoding = serializers.CharField(required=False, allow_blank=True, max_length=40)
    delimiter = serializers.CharField(required=False, allow_blank=True, trim_whitespace=False, max_length=10)
    quote = serializers.CharField(required=False, allow_blank=True, trim_whitespace=False, max_length=10)
    format = serializers.CharField(required=False, allow_blank=True, max_length=20)
    personal_data = serializers.JSONField(required=False, allow_null=True)


def announced(asked: Mapping[str, Any]) -> Announced:
    """What a checked UploadRequest announces."""
    keep = (asked.get("expires_after") or {}).get("seconds")
    return Announced(asked["filename"], asked["purpose"], asked["bytes"], keep_seconds=keep)


def whole(asked: Mapping[str, Any]) -> Whole:
    """What a checked CompleteRequest says of the file."""
    reading = {name: asked[name] for name in FIELDS if asked.get(name)}
    return Whole(asked.get("md5") or "", asked.get("sha256") or "", reading, asked.get("personal_data"))


def keep_seconds(form: Mapping[str, Any]) -> int | None:
    """`expires_after[anchor]` and `expires_after[seconds]` of a multipart form. Raises ValidationError."""
    given = {name: form.get(f"expires_after[{name}]") for name in ("anchor", "seconds")}
    if all(value is None for value in given.values()):
        return None
    wanted = ExpiresAfter(data={name: value for name, value in given.items() if value is not None})
    if not wanted.is_valid():
        raise serializers.ValidationError({"expires_after": wanted.errors})
    return int(wanted.validated_data["seconds"])


def upload_body(upload: Upload, file: dict[str, Any] | None = None) -> dict[str, Any]:
    """OpenAI's upload object."""
    return {
        "id": upload.public_id,
        "object": "upload",
        "bytes": upload.size_bytes,
        "created_at": int(upload.created_at.timestamp()),
        "filename": upload.name,
        "purpose": upload.purpose,
        "status": upload.status,
        "expires_at": int(upload.expires_at.timestamp()),
        "file": file,
    }


def part_body(upload: Upload, part: UploadPart) -> dict[str, Any]:
    """OpenAI's part object, and the number it was sent under."""
    return {
        "id": part.public_id,
        "object": "upload.part",
        "created_at": int(part.created_at.timestamp()),
        "upload_id": upload.public_id,
        "part_number": part.number,
    }


def progress_body(upload: Upload, parts: Sequence[KnownPart], file: dict[str, Any] | None) -> dict[str, Any]:
    """The upload object with what has arrived: our own fields, for whoever goes on."""
    listed = [
        part_body(upload, one.part) | {"bytes": one.part.size_bytes, "sha256": one.sha256} for one in parts
    ]
    received = sum(one.part.size_bytes for one in parts) if upload.file is None else upload.size_bytes
    return upload_body(upload, file) | {
        "bytes_received": received,
        "part_bytes": upload.part_bytes,
        "parts": listed,
    }
