"""Uploads in parts: put together in order and checked; what is wrong is refused; parts never outlive their upload."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import timedelta
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.utils import timezone

from modeling.actions import upload_parts, uploading
from modeling.actions.files import Announced
from modeling.models import Upload
from modeling.tasks.uploads import expire_uploads
from saas.lib.errors import Refusal
from tenants.audit import SYSTEM
from tenants.models import AuditEntry, Tenant, VaultObject
from tenants.scope import scope
from tests.modeling.test_files_api import CLINIC, inspect

HALF = len(CLINIC) // 2


def begun(api: Any, size: int = len(CLINIC), **changes: Any) -> str:
    body = {"filename": "notes.csv", "purpose": "fine-tune", "bytes": size, "mime_type": "text/csv"} | changes
    answer = api.post("/v1/uploads", body)
    assert answer.status_code == 200, answer.content
    assert answer.json()["status"] == "pending"
    return str(answer.json()["id"])


def part(api: Any, upload: str, content: bytes) -> Any:
    return api.client.post(f"/v1/uploads/{upload}/parts", {"data": SimpleUploadedFile("part", content)})


def ids(api: Any, upload: str, *contents: bytes) -> list[str]:
    answers = [part(api, upload, content).json() for content in contents]
    assert {one["object"] for one in answers} == {"upload.part"}
    return [one["id"] for one in answers]


def code(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def kept(tenant: Tenant, kind: str) -> int:
    """Objects of a kind that can still be read."""
    with scope(tenant):
        return VaultObject.objects.of(tenant).filter(kind=kind, destroyed_at=None).count()


def test_it_works(api: Any, acme: Tenant) -> None:
    upload = begun(api)
    second, first = ids(api, upload, CLINIC[HALF:], CLINIC[:HALF])
    assert kept(acme, "part") == 2
    digest = hashlib.md5(CLINIC).hexdigest()
    done = api.post(f"/v1/uploads/{upload}/complete", {"part_ids": [first, second], "md5": digest}).json()
    assert (done["status"], done["file"]["bytes"], done["file"]["filename"]) == (
        "completed", len(CLINIC), "notes.csv",
    )  # fmt: skip
    assert (kept(acme, "part"), kept(acme, "joined")) == (2, 1)  # no copy was made
    inspect(acme, done["file"]["id"])
    assert (kept(acme, "part"), kept(acme, "joined")) == (0, 0)
    file = api.get(f"/v1/files/{done['file']['id']}").json()
    assert (file["status"], file["rows"]) == ("processed", 200)
    content = api.get(f"/v1/files/{file['id']}/content")
    assert b"".join(content.streaming_content) == CLINIC
    assert code(api.post(f"/v1/uploads/{upload}/complete", {"part_ids": [first]})) == (409, "upload_ended")
    assert code(part(api, upload, b"more")) == (409, "upload_ended")
    assert code(api.post(f"/v1/uploads/{upload}/cancel")) == (409, "upload_ended")
    with scope(acme):
        actions = set(AuditEntry.objects.of(acme).values_list("action", flat=True))
    assert {"upload.created", "upload.completed", "file.added"} <= actions


def test_what_does_not_fit_is_refused_and_may_be_mended(api: Any, acme: Tenant) -> None:
    upload = begun(api)
    complete = f"/v1/uploads/{upload}/complete"
    first, second = ids(api, upload, CLINIC[:HALF], CLINIC[HALF:])
    assert code(part(api, upload, b"one byte more than announced")) == (400, "upload_too_large")
    assert code(part(api, upload, b"")) == (400, "empty_part")
    assert code(api.post(complete, {"part_ids": [first]})) == (400, "size_mismatch")
    assert code(api.post(complete, {"part_ids": [first, first]})) == (400, "invalid_parts")
    assert code(api.post(complete, {"part_ids": [first, "part_nobody"]})) == (400, "invalid_parts")
    wrong = {"part_ids": [first, second], "md5": "0" * 32}
    assert code(api.post(complete, wrong)) == (400, "checksum_mismatch")
    assert kept(acme, "upload") == 0
    assert api.post(complete, wrong | {"md5": None}).status_code == 200


def test_begun_wrongly(api: Any, people: Any) -> None:
    def refused(**changes: Any) -> tuple[int, str | None]:
        body = {"filename": "a.csv", "purpose": "fine-tune", "bytes": 9, "mime_type": "text/csv"} | changes
        answer = api.post("/v1/uploads", body)
        return answer.status_code, answer.json()["error"]["param"]

    assert refused(purpose="batch_output") == (400, "purpose")
    assert refused(bytes=0) == (400, "bytes")
    assert refused(bytes=10**10)[0] == 413
    assert refused(filename="")[0] == 400
    assert people.api("acme", "predict").post("/v1/uploads", {}).status_code == 403


def test_a_part_has_a_largest_size(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_parts, "PART_BYTES_MOST", 1000)
    upload = begun(api, 10_000)
    assert part(api, upload, b"x" * 1000).status_code == 200
    assert code(part(api, upload, b"x" * 1001)) == (413, "part_too_large")


def test_what_is_announced_counts_as_stored(api: Any, acme: Tenant) -> None:
    begun(api, 300 << 20)
    body = {"filename": "a.csv", "purpose": "fine-tune", "bytes": 300 << 20, "mime_type": "text/csv"}
    assert code(api.post("/v1/uploads", body)) == (413, "storage_limit")


def test_two_at_once_do_not_both_announce_what_is_left(acme: Tenant) -> None:
    asked = Announced("a.csv", "fine-tune", 300 << 20)

    def begin_another() -> str:
        try:
            with scope(acme):
                uploading.begin(acme, SYSTEM, asked)
        except Refusal as refusal:
            return refusal.code
        finally:
            connection.close()
        return "begun"

    with ThreadPoolExecutor(1) as other:
        with scope(acme):
            uploading.begin(acme, SYSTEM, asked)
            answer = other.submit(begin_another)
            wait({answer}, timeout=0.5)
        assert answer.result(10) == "storage_limit"


def test_cancelled_and_expired_parts_are_destroyed(api: Any, acme: Tenant) -> None:
    cancelled, late, fresh = begun(api), begun(api), begun(api)
    for upload in (cancelled, late, fresh):
        ids(api, upload, CLINIC[:HALF])
    assert api.post(f"/v1/uploads/{cancelled}/cancel").json()["status"] == "cancelled"
    with scope(acme):
        Upload.objects.of(acme).filter(public_id=late).update(
            expires_at=timezone.now() - timedelta(seconds=1)
        )
    assert code(part(api, late, b"x")) == (409, "upload_expired")
    expire_uploads()
    with scope(acme):
        assert Upload.objects.of(acme).get(public_id=late).status == "expired"
        assert Upload.objects.of(acme).get(public_id=fresh).status == "pending"
    assert kept(acme, "part") == 1


def test_a_strangers_upload_is_none(api: Any, globex_api: Any, acme: Tenant, globex: Tenant) -> None:
    upload = begun(api)
    (mine,) = ids(api, upload, CLINIC)
    for answer in (
        part(globex_api, upload, b"x"),
        globex_api.post(f"/v1/uploads/{upload}/complete", {"part_ids": [mine]}),
        globex_api.post(f"/v1/uploads/{upload}/cancel"),
    ):
        assert code(answer) == (404, "not_found")
    theirs = begun(globex_api)
    assert code(globex_api.post(f"/v1/uploads/{theirs}/complete", {"part_ids": [mine]})) == (
        400, "invalid_parts",
    )  # fmt: skip
