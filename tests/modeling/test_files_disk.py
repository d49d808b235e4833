"""No plaintext on disk: a canary is nowhere on it, and the same search finds Django's own temporary file."""

from __future__ import annotations

import secrets
import time
from typing import Any

import pytest
from django.conf import settings
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.files.uploadhandler import TemporaryFileUploadHandler
from django.http.multipartparser import MultiPartParser
from django.test import RequestFactory

from tests.modeling.searching import Search
from tests.modeling.test_files_api import inspect

BIG = 3 << 20  # above the 2.5 MB from which Django writes a temporary file


def found(canary: bytes, since: float) -> list[str]:
    """Where the canary lies in files changed after `since`; PostgreSQL gets a moment to write its log."""
    search = Search(canary)
    search.since = since
    return search.settled()


@pytest.fixture
def content() -> tuple[bytes, bytes]:
    """A canary and a file of 3 MiB with it on each line."""
    canary = f"canary{secrets.token_hex(8)}".encode()
    line = b"P%d,the patient " + canary + b" has a note,urgent\n"
    rows = b"".join(line % n for n in range(BIG // len(line)))
    return canary, b"patient_id,note,triage\n" + rows


@pytest.mark.slow
def test_an_upload_leaves_no_plaintext(
    acme: Any, api: Any, content: tuple[bytes, bytes], monkeypatch: Any
) -> None:
    from modeling import grouping

    monkeypatch.setattr(
        grouping.Spool.__init__, "__defaults__", (100_000, grouping.PARTITIONS)
    )  # make it spill
    canary, body = content
    start = time.time()
    during: list[str] = []
    spill = grouping._SealedRuns.append

    def spill_and_look(self: Any, data: bytes, kind: int) -> int:
        run = spill(self, data, kind)
        if len(during) == 0:
            during.extend(found(canary, start) or ["nowhere"])
        return run

    monkeypatch.setattr(grouping._SealedRuns, "append", spill_and_look)
    file = api.upload("notes.csv", body).json()
    assert found(canary, start) == []
    inspect(acme, file["id"])
    assert during == ["nowhere"]
    assert found(canary, start) == []
    assert api.get(f"/v1/files/{file['id']}").json()["rows"] > 20_000
    assert canary in b"".join(api.get(f"/v1/files/{file['id']}/content").streaming_content)


def test_the_search_finds_what_djangos_own_handler_writes(content: tuple[bytes, bytes]) -> None:
    canary, body = content
    start = time.time()
    request = RequestFactory().post("/", {"file": SimpleUploadedFile("notes.csv", body)})
    parser = MultiPartParser(request.META, request, [TemporaryFileUploadHandler(request)])
    _, files = parser.parse()
    try:
        assert found(canary, start)
    finally:
        files["file"].close()


def test_the_search_finds_what_lies_in_the_database(acme: Any) -> None:
    from modeling.models import File
    from tenants.scope import scope

    canary, start = secrets.token_hex(16), time.time()
    with scope(acme):
        File.objects.of(acme).create(name=canary, purpose="fine-tune", size_bytes=1)
    assert found(canary.encode(), start)


def test_pages_take_no_files() -> None:
    from modeling.uploads import RefuseUploadHandler
    from saas.lib.errors import Refusal

    assert settings.FILE_UPLOAD_HANDLERS == ["modeling.uploads.RefuseUploadHandler"]
    request = RequestFactory().post("/", {"file": SimpleUploadedFile("notes.csv", b"x" * 100)})
    parser = MultiPartParser(request.META, request, [RefuseUploadHandler(request)])
    with pytest.raises(Refusal) as caught:
        parser.parse()
    assert caught.value.status == 415
