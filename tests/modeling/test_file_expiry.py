"""Files that are to go at a time: as OpenAI writes it, deleted then and not before, unless something needs them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.utils import timezone

from modeling.actions.files import announced_bytes
from modeling.models import Batch, File
from modeling.tasks.uploads import expire_files
from tenants.models import AuditEntry, Tenant
from tenants.scope import scope
from tests.modeling.test_files_api import CLINIC, inspect
from tests.modeling.test_uploads import begun, ids
from tests.serving.batching import jsonl, request_line

HOUR = 3600


def sent(api: Any, purpose: str = "fine-tune", content: bytes = CLINIC, **fields: Any) -> Any:
    form = {"purpose": purpose, "file": SimpleUploadedFile("notes.csv", content)}
    return api.client.post(
        "/v1/files", form | {f"expires_after[{key}]": value for key, value in fields.items()}
    )


def time_passes(tenant: Tenant) -> None:
    with scope(tenant):
        File.objects.of(tenant).exclude(expires_at=None).update(
            expires_at=timezone.now() - timedelta(seconds=1)
        )
    expire_files()


def actions_of(tenant: Tenant) -> list[str]:
    with scope(tenant):
        return list(AuditEntry.objects.of(tenant).order_by("seq").values_list("action", flat=True))


def test_a_file_goes_at_its_time(api: Any, acme: Tenant) -> None:
    stays, goes = sent(api).json(), sent(api, anchor="created_at", seconds=HOUR).json()
    assert stays["expires_at"] is None
    assert goes["expires_at"] - goes["created_at"] == HOUR
    for file in (stays, goes):
        inspect(acme, file["id"])
    dataset = api.get(f"/v1/files/{goes['id']}").json()["dataset"]
    expire_files()
    assert api.get(f"/v1/files/{goes['id']}").status_code == 200
    time_passes(acme)
    assert api.get(f"/v1/files/{goes['id']}").status_code == 404
    assert api.get(f"/v1/datasets/{dataset}").status_code == 404
    assert api.get(f"/v1/files/{stays['id']}").status_code == 200
    assert actions_of(acme)[-2:] == ["file.deleted", "file.expired"]


def test_what_is_needed_stays_until_it_is_done(api: Any, acme: Tenant) -> None:
    file = sent(api, "batch", jsonl([request_line(1)]), anchor="created_at", seconds=HOUR).json()["id"]
    body = {"input_file_id": file, "endpoint": "/v1/embeddings", "completion_window": "24h"}
    batch = api.post("/v1/batches", body).json()["id"]
    time_passes(acme)
    assert api.get(f"/v1/files/{file}").status_code == 200
    with scope(acme):
        Batch.objects.of(acme).filter(public_id=batch).update(state=Batch.State.CANCELLED)
    time_passes(acme)
    assert api.get(f"/v1/files/{file}").status_code == 404


@pytest.mark.parametrize(
    "fields", [{"anchor": "created_at"}, {"seconds": HOUR}, {"anchor": "last_active_at", "seconds": HOUR}]
    + [{"anchor": "created_at", "seconds": wrong} for wrong in (HOUR - 1, 2592001, "soon")],
)  # fmt: skip
def test_other_times_are_refused(api: Any, acme: Tenant, fields: dict[str, Any]) -> None:
    answer = sent(api, **fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "expires_after")
    announced = {"filename": "a.csv", "purpose": "fine-tune", "bytes": 9, "mime_type": "text/csv"}
    assert api.post("/v1/uploads", announced | {"expires_after": fields}).status_code == 400
    with scope(acme):
        assert not File.objects.of(acme).exists()
        assert announced_bytes(acme) == 0


def test_an_uploads_file_goes_too(api: Any, acme: Tenant) -> None:
    upload = begun(api, expires_after={"anchor": "created_at", "seconds": HOUR})
    body = {"part_ids": ids(api, upload, CLINIC)}
    file = api.post(f"/v1/uploads/{upload}/complete", body).json()["file"]
    assert abs(file["expires_at"] - file["created_at"] - HOUR) <= 1


def test_the_page_says_when(api: Any, acme: Tenant, alice: Any) -> None:
    file = sent(api, anchor="created_at", seconds=HOUR).json()["id"]
    place = f"/t/{acme.slug}/data/{file}/"
    assert "deleted by itself" in alice.get(place).content.decode()
    inspect(acme, file)
    assert "deleted by itself" in alice.get(place, follow=True).content.decode()
    other = sent(api).json()["id"]
    assert "deleted by itself" not in alice.get(f"/t/{acme.slug}/data/{other}/").content.decode()
