"""A marker in each row, a gigabyte of them: nowhere on disk while they come, are checked and trained on."""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.files.uploadhandler import TemporaryFileUploadHandler
from django.http.multipartparser import MultiPartParser
from django.test import RequestFactory

from modeling.models import File
from tenants.models import Tenant
from tenants.scope import scope
from tests.core.tiny_text import make_base
from tests.modeling.clinic import started, train
from tests.modeling.searching import Search
from tests.modeling.test_files_api import inspect
from tests.modeling.test_jobs_start import pay_for
from tests.modeling.web_process import BOUNDARY, Sender, WebProcess, multipart, web_process
from tests.proofs.record import Proof

pytestmark = pytest.mark.slow
CANARY_MB = int(os.environ.get("CANARY_MB", "64"))
ROW_BYTES = 4_000
PEOPLE = 2_000
PART_BYTES = 8 << 20
TRAINED_ROWS = 3_000
WORDS = ("a cough that stays", "a pain in the chest", "something that is hard to name")


@pytest.fixture
def tiny(tmp_path: Path, settings: Any) -> None:
    make_base(tmp_path / "models")
    settings.MODELS_DIR = tmp_path / "models"


def new_marker() -> bytes:
    """A word that is nowhere else: of letters only, since numbers would be looked at as somebody's."""
    return b"canary" + bytes(secrets.choice(b"abcdefghijklmnopqrstuvwxyz") for _ in range(24))


def rows(marker: bytes, size: int) -> Iterator[bytes]:
    """About `size` bytes of CSV in mebibytes at least: each row holds the marker some hundred times."""
    yield b"patient_id,note,triage\n"
    note = (marker + b" ") * (ROW_BYTES // (len(marker) + 1))
    at, block, sent = 0, bytearray(), 0
    while sent < size:
        block += b"P%d,%s %d,%s\n" % (at % PEOPLE, note, at, b"urgent" if at % 3 else b"routine")
        at += 1
        if len(block) > 1 << 20:
            yield bytes(block)
            sent += len(block)
            block.clear()


def in_one_body(web: WebProcess, key: str, search: Search, size: int) -> str:
    """POST /v1/files, searched while half of it is there; the file's id."""
    blocks = list(rows(search.marker, 1 << 20))
    count = size // len(blocks[1])
    form = multipart(b"", {"purpose": "fine-tune"}).replace(b'name="data"', b'name="file"')
    head, tail = form.split(b"\r\n\r\n\r\n--", 1)
    body = [head + b"\r\n\r\n" + blocks[0], *[blocks[1]] * count, b"\r\n--" + tail]
    link = Sender(web.port, key).begun(
        "POST", "files", b"", {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}, 1.0,
        length=sum(map(len, body)),
    )  # fmt: skip
    for at, piece in enumerate(body):
        link.send(piece)
        if at in (count // 2, count):
            assert search.settled() == []
    return str(Sender.answered(link)["id"])


def in_parts(web: WebProcess, key: str, search: Search, size: int) -> str:
    """/v1/uploads, searched while a part is half there; the file's id."""
    content = b"".join(rows(search.marker, size))
    sender = Sender(web.port, key)
    body = {"filename": "b.csv", "purpose": "fine-tune", "bytes": len(content), "mime_type": "text/csv"}
    upload = str(sender.ask("POST", "uploads", body)["id"])
    ids = []
    for start in range(0, len(content), PART_BYTES):
        part = content[start : start + PART_BYTES]
        if start == PART_BYTES:
            link = sender.part(upload, part, 0.5)
            assert search.settled() == []
            link.close()
        ids.append(sender.send_part(upload, part))
    return str(sender.ask("POST", f"uploads/{upload}/complete", {"part_ids": ids})["file"]["id"])


def trained(api: Any, tenant: Tenant, search: Search) -> None:
    """A private run on rows that hold the marker."""
    marker = search.marker.decode()
    lines = [f"p{n},{marker} {WORDS[n % 3]} since {n} days,{'abc'[n % 3]}" for n in range(TRAINED_ROWS)]
    content = "\n".join(["patient_id,text,label", *lines]).encode()
    file = api.upload("notes.csv", content).json()["id"]
    with search.meanwhile():
        inspect(tenant, file)
        job = started(api, file, privacy={"epsilon": 3})
        assert train(tenant, job["id"]).state == "succeeded"


def test_nothing_in_clear(api: Any, acme: Tenant, tiny: None, tmp_path: Path, proof: Proof) -> None:
    pay_for(acme, "business")
    begun = time.monotonic()
    with web_process(tmp_path) as web:
        search = Search(new_marker(), pids=[web.pid], more=[tmp_path])
        large = in_one_body(web, api.key, search, CANARY_MB * 1_000_000)
        small = in_parts(web, api.key, search, max(CANARY_MB // 8, 20) * 1_000_000)
        assert search.settled() == []
        with search.meanwhile():
            inspect(acme, small)
        trained(api, acme, search)
        assert search.settled() == []
    assert search.hits == set()
    with scope(acme):
        sizes = dict(File.objects.of(acme).values_list("public_id", "size_bytes"))
        checked = File.objects.of(acme).filter(status=File.Status.PROCESSED)
        assert checked.count() == 2
        assert checked.filter(public_id=small).exists()
    controls = [control_default_handler(), control_without_a_name(), control_database(acme)]
    assert all(controls), "the controls must be found"
    found = (
        f"{sizes[large] / 1e6:,.0f} MB uploaded in one body, {sizes[small] / 1e6:,.0f} MB in parts and inspected, "
        f"and a private run: {search.rounds} "
        f"searches of {search.looked // search.rounds:,} files each, 0 hits; Django's own handler, a file "
        "without a name and a row of the database: found 3 of 3"
    )
    proof.found("a marker searched for on the whole disk", found, seconds=time.monotonic() - begun)


def control_default_handler() -> bool:
    """What Django does by default: a temporary file."""
    search = Search(new_marker())
    upload = SimpleUploadedFile("notes.csv", b"".join(rows(search.marker, 3 << 20)))
    request = RequestFactory().post("/", {"file": upload})
    files: Any
    _, files = MultiPartParser(request.META, request, [TemporaryFileUploadHandler(request)]).parse()
    try:
        return bool(search.now())
    finally:
        files["file"].close()


def control_without_a_name() -> bool:
    """A file that was deleted and is still open."""
    search = Search(new_marker())
    with tempfile.TemporaryFile() as nameless:
        nameless.write(b"".join(rows(search.marker, 1 << 20)))
        nameless.flush()
        return any(place.startswith("/proc/") for place in search.now())


def control_database(tenant: Tenant) -> bool:
    """A row that should not be."""
    search = Search(new_marker())
    with scope(tenant):
        File.objects.of(tenant).create(name=search.marker.decode(), purpose="fine-tune", size_bytes=1)
    return bool(search.settled())
