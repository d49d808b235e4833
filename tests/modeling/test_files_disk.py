"""No plaintext on disk: a canary is nowhere on it, and the same search finds Django's own temporary file."""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.files.uploadhandler import TemporaryFileUploadHandler
from django.db import connection
from django.http.multipartparser import MultiPartParser
from django.test import RequestFactory

from tests.modeling.test_files_api import inspect

BIG = 3 << 20  # above the 2.5 MB from which Django writes a temporary file


def services_folder() -> Path:
    """The folder of this run's own PostgreSQL and Valkey: a server process works in its data directory."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
    return Path(f"/proc/{pid}/cwd").resolve().parent


def files_on_disk() -> Iterator[Path]:
    """Everything the product could have written: data, objects, its own database and Valkey, temporary files."""
    for folder in (Path(settings.DATA_DIR), services_folder(), Path("/dev/shm")):
        for path, _, names in os.walk(folder):
            yield from (Path(path) / name for name in names)
    for folder in (Path(tempfile.gettempdir()), Path("/var/tmp")):
        yield from (path for path in folder.iterdir() if not path.is_dir())


def open_files() -> Iterator[Path]:
    """Files without a name that this process still holds."""
    for link in Path("/proc/self/fd").iterdir():
        try:
            if link.is_file():
                yield link
        except OSError:
            continue


def found(canary: bytes, since: float) -> list[str]:
    """Where the canary lies in files changed after `since`; PostgreSQL gets a moment to write its log."""
    time.sleep(1)
    places = []
    for path in (*files_on_disk(), *open_files()):
        try:
            if path.stat().st_mtime >= since - 1 and canary in path.read_bytes():
                places.append(str(path))
        except OSError:
            continue
    return places


@pytest.fixture
def content() -> tuple[bytes, bytes]:
    """A canary and a file of 3 MiB with it on each line."""
    canary = f"canary{secrets.token_hex(8)}".encode()
    line = b"P%d,the patient " + canary + b" has a note,urgent\n"
    rows = b"".join(line % n for n in range(BIG // len(line)))
    return canary, b"patient_id,note,triage\n" + rows


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
    spill = grouping.Spool._spill

    def spill_and_look(self: Any) -> None:
        spill(self)
        if len(during) == 0:
            during.extend(found(canary, start) or ["nowhere"])

    monkeypatch.setattr(grouping.Spool, "_spill", spill_and_look)
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
