"""The official OpenAI client, unmodified, uploads in parts: by hand, from a path, from memory; files that expire."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.modeling.test_files_api import CLINIC, inspect
from tests.modeling.test_files_openai import client

__all__ = ["client"]
HALF = len(CLINIC) // 2
MD5 = hashlib.md5(CLINIC).hexdigest()


def test_part_by_part(acme: Any, client: openai.OpenAI) -> None:
    upload = client.uploads.create(
        bytes=len(CLINIC),
        filename="notes.csv",
        mime_type="text/csv",
        purpose="fine-tune",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )
    assert (upload.object, upload.status, upload.file) == ("upload", "pending", None)
    second = client.uploads.parts.create(upload.id, data=CLINIC[HALF:])
    first = client.uploads.parts.create(upload.id, data=io.BytesIO(CLINIC[:HALF]))
    assert (first.object, first.upload_id) == ("upload.part", upload.id)
    with pytest.raises(openai.BadRequestError) as caught:
        client.uploads.complete(upload.id, part_ids=[second.id, first.id], md5=MD5)
    assert caught.value.code == "checksum_mismatch"
    done = client.uploads.complete(upload.id, part_ids=[first.id, second.id], md5=MD5)
    assert done.file is not None
    assert (done.status, done.file.purpose, done.file.bytes) == ("completed", "fine-tune", len(CLINIC))
    assert done.file.expires_at == done.file.created_at + 3600
    inspect(acme, done.file.id)
    assert client.files.content(done.file.id).content == CLINIC


def test_cancelled(client: openai.OpenAI) -> None:
    upload = client.uploads.create(bytes=9, filename="notes.csv", mime_type="text/csv", purpose="fine-tune")
    assert client.uploads.cancel(upload.id).status == "cancelled"
    with pytest.raises(openai.ConflictError):
        client.uploads.parts.create(upload.id, data=b"a,b\n1,2\n")


def test_in_chunks_from_a_path_and_from_memory(acme: Any, client: openai.OpenAI, tmp_path: Path) -> None:
    place = tmp_path / "notes.csv"
    place.write_bytes(CLINIC)
    size = len(CLINIC) // 5 + 1
    words: dict[str, Any] = {"mime_type": "text/csv", "purpose": "fine-tune", "part_size": size, "md5": MD5}
    from_path = client.uploads.upload_file_chunked(file=place, **words)
    from_memory = client.uploads.upload_file_chunked(
        file=CLINIC, filename="notes.csv", bytes=len(CLINIC), **words
    )
    for upload in (from_path, from_memory):
        assert (upload.status, upload.filename) == ("completed", "notes.csv")
        assert upload.file is not None
        inspect(acme, upload.file.id)
        assert client.files.content(upload.file.id).content == CLINIC


def test_a_file_that_expires(client: openai.OpenAI) -> None:
    made = client.files.create(
        file=("notes.csv", CLINIC),
        purpose="fine-tune",
        expires_after={"anchor": "created_at", "seconds": 86_400},
    )
    assert made.expires_at == made.created_at + 86_400
