"""Resuming an upload: what has arrived is told, a part sent again does no harm, wrong checksums keep nothing."""

from __future__ import annotations

import base64
import hashlib
from datetime import timedelta
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.utils import timezone

from modeling.actions import upload_parts
from modeling.models import Upload, UploadPart
from tenants import vault
from tenants.models import Tenant
from tenants.scope import scope
from tests.modeling.test_files_api import CLINIC, inspect
from tests.modeling.test_uploads import HALF, begun, code, ids, kept

SHA256 = hashlib.sha256(CLINIC).hexdigest()


def send(api: Any, upload: str, content: bytes, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    form = {"data": SimpleUploadedFile("part", content), **fields}
    return api.client.post(f"/v1/uploads/{upload}/parts", form, headers=headers or {})


def test_whoever_comes_back_is_told_what_arrived(api: Any) -> None:
    upload = begun(api, part_bytes=HALF)
    second = send(api, upload, CLINIC[HALF:], part_number=2).json()
    told = api.get(f"/v1/uploads/{upload}").json()
    assert (told["bytes_received"], told["part_bytes"], told["bytes"]) == (
        len(CLINIC) - HALF, HALF, len(CLINIC),
    )  # fmt: skip
    assert told["parts"] == [
        second | {"bytes": len(CLINIC) - HALF, "sha256": hashlib.sha256(CLINIC[HALF:]).hexdigest()}
    ]
    first = send(api, upload, CLINIC[:HALF], part_number=1).json()
    assert [one["part_number"] for one in api.get(f"/v1/uploads/{upload}").json()["parts"]] == [1, 2]
    whole = {"part_ids": [first["id"], second["id"]], "sha256": SHA256}
    done = api.post(f"/v1/uploads/{upload}/complete", whole).json()
    told = api.get(f"/v1/uploads/{upload}").json()
    assert (told["status"], told["file"], told["parts"]) == ("completed", done["file"], [])


def test_a_part_sent_again_replaces_the_former(api: Any, acme: Tenant) -> None:
    upload = begun(api)
    first = send(api, upload, b"x" * HALF, part_number=1).json()["id"]
    with scope(acme):
        former = UploadPart.objects.of(acme).select_related("object").get(public_id=first).object
    assert send(api, upload, CLINIC[:HALF], part_number=1).json()["id"] == first
    with scope(acme):
        taken = UploadPart.objects.of(acme).select_related("object").get(public_id=first)
        assert former is not None
        with pytest.raises(vault.KeyDestroyed):
            vault.data_key(former)
        assert taken.object is not None
        assert vault.get(taken.object) == CLINIC[:HALF]
    assert send(api, upload, CLINIC[:HALF], part_number=1).json()["id"] == first  # the same bytes
    assert kept(acme, "part") == 1
    assert code(send(api, upload, b"x", part_number=0)) == (400, "invalid_request")
    assert code(send(api, upload, b"x", part_number=10_001)) == (400, "invalid_request")
    assert code(send(api, upload, b"x", part_number="one")) == (400, "invalid_request")


def test_a_client_without_numbers_may_repeat_a_part_whose_answer_was_lost(api: Any, acme: Tenant) -> None:
    upload = begun(api)
    first, _lost, again, last = ids(api, upload, CLINIC[:HALF], *[CLINIC[HALF:-9]] * 2, CLINIC[-9:])
    done = api.post(f"/v1/uploads/{upload}/complete", {"part_ids": [first, again, last], "sha256": SHA256})
    assert done.status_code == 200
    assert kept(acme, "part") == 3  # the one that nobody named is destroyed
    inspect(acme, done.json()["file"]["id"])
    assert kept(acme, "part") == 0


@pytest.mark.parametrize("kind", ["sha256", "md5"])
def test_a_wrong_checksum_keeps_nothing(api: Any, acme: Tenant, kind: str) -> None:
    upload = begun(api)
    right, name = hashlib.new(kind, CLINIC), {"sha256": "sha-256", "md5": "md5"}[kind]
    wrong = hashlib.new(kind, b"something else")

    def declared(value: str) -> dict[str, Any]:
        return {kind: value}

    header = {"content-digest": f"{name}=:{base64.b64encode(wrong.digest()).decode()}:"}
    assert code(send(api, upload, CLINIC, **declared(wrong.hexdigest()))) == (400, "checksum_mismatch")
    assert code(send(api, upload, CLINIC, header)) == (400, "checksum_mismatch")
    assert code(send(api, upload, CLINIC, **declared("zz"))) == (400, "invalid_request")
    assert code(send(api, upload, CLINIC, {"repr-digest": f"{name}=:AAAA:"})) == (400, "invalid_request")
    assert kept(acme, "part") == 0
    assert api.get(f"/v1/uploads/{upload}").json()["parts"] == []
    assert send(api, upload, CLINIC, **declared(right.hexdigest().upper())).status_code == 200
    header = {"repr-digest": f"unixsum=:AA==:, {name}=:{base64.b64encode(right.digest()).decode()}:"}
    assert send(api, upload, CLINIC, header).status_code == 200


def test_complete_can_be_called_again(api: Any, acme: Tenant) -> None:
    upload = begun(api)
    parts = ids(api, upload, CLINIC[:HALF], CLINIC[HALF:])
    complete = f"/v1/uploads/{upload}/complete"
    assert code(api.post(complete, {"part_ids": parts, "sha256": "0" * 64})) == (400, "checksum_mismatch")
    done = api.post(complete, {"part_ids": parts, "sha256": SHA256.upper()}).json()
    assert api.post(complete, {"part_ids": parts}).json() == done
    inspect(acme, done["file"]["id"])
    assert api.post(complete, {"part_ids": parts}).json()["file"]["id"] == done["file"]["id"]
    assert code(api.post(complete, {"part_ids": parts[::-1]})) == (409, "upload_ended")


def test_each_part_keeps_it_open_up_to_a_day(api: Any, acme: Tenant) -> None:
    upload = begun(api)

    def age(**changes: Any) -> None:
        with scope(acme):
            Upload.objects.of(acme).filter(public_id=upload).update(**changes)

    def left() -> float:
        with scope(acme):
            row = Upload.objects.of(acme).get(public_id=upload)
        return (row.expires_at - timezone.now()).total_seconds()

    now = timezone.now()
    age(expires_at=now + timedelta(minutes=2))
    send(api, upload, CLINIC[:9])
    assert 3500 < left() <= 3600
    age(expires_at=now + timedelta(minutes=2), created_at=now - timedelta(hours=23, minutes=50))
    send(api, upload, CLINIC[9:18])
    assert 500 < left() <= 600


def test_uploads_under_way_are_listed(api: Any, globex_api: Any) -> None:
    first, second, third = begun(api), begun(api), begun(api)
    begun(globex_api)
    api.post(f"/v1/uploads/{second}/cancel")
    page = api.get("/v1/uploads", limit=1).json()
    assert ([one["id"] for one in page["data"]], page["has_more"]) == ([third], True)
    page = api.get("/v1/uploads", after=third).json()
    assert ([one["id"] for one in page["data"]], page["has_more"]) == ([first], False)


def test_checksums_of_parts_are_kept_wrapped(api: Any, acme: Tenant) -> None:
    upload = begun(api)
    send(api, upload, CLINIC)
    with scope(acme):
        row = UploadPart.objects.of(acme).get(upload__public_id=upload)
        (known,) = upload_parts.known_parts(acme, row.upload)
    assert hashlib.sha256(CLINIC).digest() not in bytes(row.checksum)
    assert known.sha256 == SHA256
