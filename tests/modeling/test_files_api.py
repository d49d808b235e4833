"""Files through /v1: upload, inspect, look at, read back, list, delete; and who may not."""

from __future__ import annotations

from typing import Any

import pytest

from modeling.actions.inspection import inspect_file
from tenants.models import VaultObject
from tenants.scope import scope

CLINIC = b"patient_id,note,triage\n" + b"".join(
    f'P{n % 40:03d},"Patient says, quietly, that symptom {n} is worse",{"urgent" if n % 3 else "routine"}\n'.encode()
    for n in range(200)
)


def inspect(tenant: Any, public_id: str) -> None:
    """Inspect a file, without waiting for its turn among others."""
    from modeling.models import File

    with scope(tenant):
        file = File.objects.of(tenant).get(public_id=public_id)
    inspect_file(tenant.pk, file.pk)


def test_it_works(people: Any, acme: Any, api: Any) -> None:
    made = api.upload("notes.csv", CLINIC)
    assert made.status_code == 200
    body = made.json()
    assert body["id"].startswith("file-")
    assert body["object"] == "file"
    assert (body["bytes"], body["purpose"], body["status"]) == (len(CLINIC), "fine-tune", "uploaded")
    inspect(acme, body["id"])
    found = api.get(f"/v1/files/{body['id']}").json()
    assert found["status"] == "processed"
    assert (found["rows"], found["units"], found["error_count"]) == (200, 40, 0)
    content = api.get(f"/v1/files/{body['id']}/content")
    assert b"".join(content.streaming_content) == CLINIC
    dataset = api.get(f"/v1/datasets/{found['dataset']}").json()
    assert dataset["columns"] == {"text": "note", "label": "triage", "unit": "patient_id"}
    assert dataset["task"] == "classification"
    assert api.get("/v1/datasets").json()["data"][0]["id"] == found["dataset"]


def test_the_raw_object_is_destroyed_after_inspection(acme: Any, api: Any) -> None:
    file = api.upload("notes.csv", CLINIC).json()
    inspect(acme, file["id"])
    with scope(acme):
        kinds = dict(VaultObject.objects.of(acme).values_list("kind", "destroyed_at"))
    assert kinds["upload"] is not None
    assert kinds["segments"] is None


def test_content_waits_for_inspection(api: Any) -> None:
    file = api.upload("notes.csv", CLINIC).json()
    answer = api.get(f"/v1/files/{file['id']}/content")
    assert answer.status_code == 409
    assert answer.json()["error"]["code"] == "not_processed"


def test_bad_rows_are_left_out_and_named(acme: Any, api: Any) -> None:
    content = CLINIC + b"P001,short\nP002,a,b,c,d\n"
    file = api.upload("notes.csv", content).json()
    inspect(acme, file["id"])
    found = api.get(f"/v1/files/{file['id']}").json()
    assert found["status"] == "processed"
    assert found["status_details"] == "2 of 202 rows were left out: see the errors."
    assert [(e["line"], e["column"], e["rule"]) for e in found["errors"]] == [
        (202, 3, "ragged"),
        (203, 4, "ragged"),
    ]
    assert "short" not in str(found)


def test_a_refused_file_says_where_and_is_not_kept(acme: Any, api: Any) -> None:
    lines = "1,é\n".encode() * 50 + b"2,\xe9\n"  # a damaged byte in what is UTF-8 otherwise
    file = api.upload("notes.csv", b"a,b\n" + lines).json()
    inspect(acme, file["id"])
    found = api.get(f"/v1/files/{file['id']}").json()
    assert found["status"] == "error"
    assert found["status_details"].startswith("Line 52, column 3: This is not utf-8.")
    assert api.get(f"/v1/files/{file['id']}/content").status_code == 410
    with scope(acme):  # its sealed stream stays for a day, to be read again as something else
        assert VaultObject.objects.of(acme).filter(destroyed_at=None).count() == 1
    assert api.delete(f"/v1/files/{file['id']}").status_code == 200
    with scope(acme):
        assert not VaultObject.objects.of(acme).filter(destroyed_at=None).exists()


def test_a_declared_encoding_is_used_and_kept(acme: Any, api: Any) -> None:
    from django.core.files.uploadedfile import SimpleUploadedFile

    content = "name,city\nZoë,Århus\nJosé,Málaga\n".encode("latin-1")
    form = {"purpose": "fine-tune", "encoding": "latin-1", "file": SimpleUploadedFile("people.csv", content)}
    file = api.client.post("/v1/files", form).json()
    inspect(acme, file["id"])
    assert b"".join(api.get(f"/v1/files/{file['id']}/content").streaming_content) == content


def test_lists_page_by_page(api: Any) -> None:
    made = [api.upload(f"{n}.csv", b"a,b\n1,2\n").json()["id"] for n in range(5)]
    first = api.get("/v1/files", limit=2).json()
    assert [one["id"] for one in first["data"]] == made[:2:-1]
    assert (first["first_id"], first["last_id"], first["has_more"]) == (made[4], made[3], True)
    rest = api.get("/v1/files", limit=10, after=first["last_id"]).json()
    assert [one["id"] for one in rest["data"]] == made[2::-1]
    assert rest["has_more"] is False
    assert api.get("/v1/files", purpose="user_data").json()["data"] == []


def test_delete_shreds_everything(acme: Any, api: Any) -> None:
    from modeling.models import DatasetKey, UnitKey

    file = api.upload("notes.csv", CLINIC).json()
    inspect(acme, file["id"])
    dataset = api.get(f"/v1/files/{file['id']}").json()["dataset"]
    assert api.delete(f"/v1/files/{file['id']}").json() == {
        "id": file["id"],
        "object": "file",
        "deleted": True,
    }
    for path in (f"/v1/files/{file['id']}", f"/v1/files/{file['id']}/content", f"/v1/datasets/{dataset}"):
        assert api.get(path).status_code == 404
    assert api.delete(f"/v1/files/{file['id']}").status_code == 404
    with scope(acme):
        assert not VaultObject.objects.of(acme).filter(destroyed_at=None).exists()
        assert not UnitKey.objects.of(acme).exists()
        assert not DatasetKey.objects.of(acme).exists()


def test_a_deleted_file_is_not_inspected(acme: Any, api: Any) -> None:
    file = api.upload("notes.csv", CLINIC).json()
    api.delete(f"/v1/files/{file['id']}")
    inspect(acme, file["id"])
    with scope(acme):
        assert not VaultObject.objects.of(acme).filter(destroyed_at=None).exists()


@pytest.mark.parametrize("method", ["get", "delete"])
def test_strangers_get_404_as_for_no_file(acme: Any, api: Any, globex_api: Any, method: str) -> None:
    file = api.upload("notes.csv", CLINIC).json()
    inspect(acme, file["id"])
    theirs = getattr(globex_api, method)(f"/v1/files/{file['id']}")
    nothing = getattr(globex_api, method)("/v1/files/file-000000000000000000000000")
    assert (theirs.status_code, theirs.json()) == (nothing.status_code, nothing.json())
    assert theirs.status_code == 404
    assert globex_api.get(f"/v1/files/{file['id']}/content").status_code == 404
    assert globex_api.get("/v1/files").json()["data"] == []


def test_a_key_needs_the_scope(people: Any) -> None:
    answer = people.api("acme", "predict").upload("a.csv", b"a,b\n1,2\n")
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "missing_scope"


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({"purpose": "assistants"}, "purpose"),
        ({}, "purpose"),
        ({"purpose": "fine-tune", "encoding": "klingon"}, "encoding"),
    ],
)
def test_a_bad_form_is_refused(acme: Any, api: Any, form: dict[str, str], param: str) -> None:
    from django.core.files.uploadedfile import SimpleUploadedFile

    answer = api.client.post("/v1/files", {**form, "file": SimpleUploadedFile("a.csv", b"a,b\n1,2\n")})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    with scope(acme):
        assert not VaultObject.objects.of(acme).exists()


def test_no_file_and_empty_file_are_refused(api: Any) -> None:
    assert api.client.post("/v1/files", {"purpose": "fine-tune"}).json()["error"]["code"] == "missing_file"
    assert api.upload("a.csv", b"").status_code == 400
    assert api.post("/v1/files", {"purpose": "fine-tune"}).status_code == 415


def test_storage_is_limited(acme: Any, api: Any, settings: Any) -> None:
    from django.conf import settings as _settings

    from modeling.models import File

    with scope(acme):
        File.objects.of(acme).create(name="big", purpose="fine-tune", size_bytes=(1 << 29) - 10)
    answer = api.upload("a.csv", b"a,b\n1,2\n" * 10)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "storage_limit"
    assert not [path for path in (_settings.OBJECTS_DIR / str(acme.pk)).rglob("*") if path.is_file()]


def test_only_one_of_two_inspections_runs(acme: Any, api: Any) -> None:
    from modeling.models import Dataset, Inspection

    file = api.upload("notes.csv", CLINIC).json()
    inspect(acme, file["id"])
    inspect(acme, file["id"])
    with scope(acme):
        assert Dataset.objects.of(acme).count() == 1
        assert Inspection.objects.of(acme).get().done_at is not None


def test_content_streams_to_an_async_server(acme: Any, api: Any) -> None:
    from asgiref.sync import async_to_sync
    from django.test import AsyncClient

    file = api.upload("notes.csv", CLINIC).json()
    inspect(acme, file["id"])
    headers = {"authorization": f"Bearer {api.key}"}

    async def fetch() -> bytes:
        answer: Any = await AsyncClient().get(f"/v1/files/{file['id']}/content", headers=headers)
        assert answer.is_async
        return b"".join([chunk async for chunk in answer.streaming_content])

    assert async_to_sync(fetch)() == CLINIC


def hinted_files() -> set[str]:
    """The files named by the hints that wait in the quick queue."""
    import base64
    import json

    import redis
    from django.conf import settings

    found = set()
    for message in redis.Redis.from_url(settings.REDIS_URL).lrange("quick", 0, -1):
        task = json.loads(message)
        if task["headers"]["task"] == "modeling.inspect_file":
            found.add(json.loads(base64.b64decode(task["body"]))[1]["file_id"])
    return found


def test_the_sweeper_hints_at_files_nobody_inspects(acme: Any, api: Any) -> None:
    import redis
    from django.conf import settings

    from modeling.models import File
    from modeling.tasks.datasets import sweep_inspections

    file = api.upload("notes.csv", CLINIC).json()
    with scope(acme):
        file_id = str(File.objects.of(acme).get(public_id=file["id"]).pk)
    assert file_id in hinted_files()
    redis.Redis.from_url(settings.REDIS_URL).delete("quick")  # the broker loses everything
    sweep_inspections()
    assert file_id in hinted_files()
    inspect(acme, file["id"])
    redis.Redis.from_url(settings.REDIS_URL).delete("quick")
    sweep_inspections()
    assert file_id not in hinted_files()
