"""A file read in another way: guesses shown and corrected, refused files within a day, never under a job's feet."""

from __future__ import annotations

import io
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from django.utils import timezone

from modeling.actions import rereading
from modeling.models import Dataset, DatasetVersion, File, Inspection, UnitKey
from modeling.tasks.datasets import inspect_file, sweep_kept_streams
from tenants.models import VaultObject
from tenants.scope import scope

GERMAN = "patient;notiz;stadt\n" + "".join(
    f"P{n % 20:02d};Müller klagt über Schmerzen im Rücken {n};Köln\n" for n in range(60)
)


def inspect(tenant: Any, public_id: str) -> None:
    """Run the inspection task for a file."""
    with scope(tenant):
        file = File.objects.of(tenant).get(public_id=public_id)
    inspect_file(tenant_id=str(tenant.pk), file_id=str(file.pk))


def uploaded(api: Any, tenant: Any, name: str, content: bytes) -> str:
    """A file's id after its inspection."""
    made = api.upload(name, content)
    assert made.status_code == 200, made.content
    inspect(tenant, made.json()["id"])
    return str(made.json()["id"])


def content(api: Any, file: str) -> bytes:
    """What a download gives."""
    return b"".join(api.get(f"/v1/files/{file}/content").streaming_content)


def test_a_guess_is_shown_and_corrected(acme: Any, api: Any) -> None:
    raw = GERMAN.encode("cp850")
    file = uploaded(api, acme, "notes.csv", raw)
    found = api.get(f"/v1/files/{file}").json()
    assert found["read_as"]["found"]["encoding"] == "likely"
    again = api.post(f"/v1/files/{file}/read", {"encoding": "cp850", "delimiter": "semicolon"})
    assert again.json()["status"] == "uploaded", again.content
    assert api.post(f"/v1/files/{file}/read", {}).status_code == 409
    inspect(acme, file)
    found = api.get(f"/v1/files/{file}").json()
    assert (found["status"], found["rows"], found["units"]) == ("processed", 60, 20)
    assert found["reading"] == {"encoding": "cp850", "delimiter": ";"}
    assert found["read_as"]["found"]["encoding"] == "declared"
    assert content(api, file) == raw
    with scope(acme):
        versions = DatasetVersion.objects.of(acme).filter(file__public_id=file).order_by("number")
        assert [(one.number, one.mode, one.segments_id is None) for one in versions] == [
            (1, "file", True),
            (2, "read", False),
        ]
        assert UnitKey.objects.of(acme).filter(dataset=versions[0].dataset).count() == 20


def test_the_page_of_a_file_shows_how_far_its_check_is(acme: Any, api: Any, bob: Any) -> None:
    file = api.upload("notes.csv", GERMAN.encode()).json()
    address = f"/t/{acme.slug}/data/{file['id']}/"
    page = bob.get(address).content.decode()
    assert "waiting for its turn" in page
    assert "value=" not in page[page.index("<progress") : page.index("</progress")]
    with scope(acme):
        soon = timezone.now() + timedelta(minutes=1)
        Inspection.objects.of(acme).update(lease_until=soon, bytes_done=2_000, rows_done=1_234)
    page = bob.get(address).content.decode()
    assert f'max="{file["bytes"]}" value="2000"' in page
    assert "2.0 kB of" in page
    assert "1,234 rows" in page
    assert "waiting for its turn" not in page


def test_a_wrong_delimiter_is_corrected_from_the_rows(acme: Any, api: Any) -> None:
    raw = b"patient:note\n" + b"".join(b"P%d:it hurts and it is worse\n" % n for n in range(30))
    file = uploaded(api, acme, "notes.txt", raw)
    first = api.get(f"/v1/files/{file}").json()
    assert first["read_as"]["found"]["delimiter"] == "one_column"
    assert api.post(f"/v1/files/{file}/read", {"delimiter": ":"}).status_code == 200
    inspect(acme, file)
    dataset = api.get(f"/v1/files/{file}").json()["dataset"]
    assert dataset == first["dataset"]
    with scope(acme):
        version = DatasetVersion.objects.of(acme).get(file__public_id=file, number=2)
        assert version.schema["layout"]["columns"] == ["patient", "note"]
    assert content(api, file) == raw


def test_what_cannot_be_read_in_that_way_stays_as_it_was(acme: Any, api: Any) -> None:
    raw = GERMAN.encode()
    file = uploaded(api, acme, "notes.csv", raw)
    assert api.post(f"/v1/files/{file}/read", {"format": "jsonl"}).status_code == 200
    inspect(acme, file)
    found = api.get(f"/v1/files/{file}").json()
    assert (found["status"], found["rows"], found["reading"]) == ("processed", 60, {})
    assert "stays as it was" in found["status_details"]
    assert content(api, file) == raw


def test_a_refused_file_is_read_from_its_sealed_stream_within_a_day(acme: Any, api: Any) -> None:
    raw = b"patient^note\n" + b"".join(b"P%d^one, two%s\n" % (n, b", three" * (n % 5)) for n in range(30))
    file = uploaded(api, acme, "notes.csv", raw)
    refused = api.get(f"/v1/files/{file}").json()
    assert refused["status"] == "error"
    assert refused["errors"][0]["rule"] == "ragged"
    assert refused["error_count"] == sum(
        api.get(f"/v1/files/{file}/errors").json()["errors_by_rule"].values()
    )
    assert api.post(f"/v1/files/{file}/read", {"delimiter": "^"}).status_code == 200
    inspect(acme, file)
    found = api.get(f"/v1/files/{file}").json()
    assert (found["status"], found["rows"], found["errors"]) == ("processed", 30, [])
    assert content(api, file) == raw
    with scope(acme):
        kept = VaultObject.objects.of(acme).filter(kind="upload", destroyed_at=None)
        assert not kept.exists()


@pytest.mark.parametrize("end", ["a day", "deletion"])
def test_a_refused_stream_is_destroyed(acme: Any, api: Any, end: str) -> None:
    file = uploaded(api, acme, "notes.csv", b"a,a\n1,2\n")
    with scope(acme):
        streams = VaultObject.objects.of(acme).filter(kind="upload", destroyed_at=None)
        assert streams.count() == 1
    sweep_kept_streams()
    with scope(acme):
        assert streams.count() == 1, "too early"
        if end == "a day":
            Inspection.objects.of(acme).update(kept_until=timezone.now() - timedelta(seconds=1))
    if end == "deletion":
        assert api.delete(f"/v1/files/{file}").status_code == 200
    else:
        sweep_kept_streams()
        answer = api.post(f"/v1/files/{file}/read", {"format": "csv"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (410, "gone")
    with scope(acme):
        assert streams.count() == 0


def test_nothing_is_read_again_once_a_private_job_has_run(acme: Any, api: Any) -> None:
    file = uploaded(api, acme, "notes.csv", GERMAN.encode())
    with scope(acme):
        Dataset.objects.of(acme).update(unit_fixed=True)
    answer = api.post(f"/v1/files/{file}/read", {"delimiter": ","})
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "unit_fixed")


def test_a_job_that_came_meanwhile_wins(acme: Any, api: Any) -> None:
    file = uploaded(api, acme, "notes.csv", GERMAN.encode())
    assert api.post(f"/v1/files/{file}/read", {"delimiter": ";"}).status_code == 200
    with scope(acme):
        Dataset.objects.of(acme).update(unit_fixed=True)
    inspect(acme, file)
    found = api.get(f"/v1/files/{file}").json()
    assert found["status"] == "processed"
    with scope(acme):
        version = rereading.version_of(acme, File.objects.of(acme).get(public_id=file))
        assert version is not None
        assert version.number == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("encoding", "rot13"),
        ("encoding", "no-such"),
        ("encoding", "idna"),
        ("delimiter", "ab"),
        ("quote", "ab"),
        ("format", "xml"),
    ],
)
def test_what_is_declared_is_checked(api: Any, acme: Any, field: str, value: str) -> None:
    file = uploaded(api, acme, "notes.csv", GERMAN.encode())
    answer = api.post(f"/v1/files/{file}/read", {field: value})
    assert answer.status_code in (400, 422), answer.content
    assert answer.json()["error"]["param"] == field


def test_parquet_comes_back_as_json_lines(acme: Any, api: Any) -> None:
    table = pa.table({"patient_id": ["P1", "P2"], "note": ["it hurts a lot", None], "age": [41, None]})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    file = uploaded(api, acme, "notes.parquet", sink.getvalue())
    found = api.get(f"/v1/files/{file}").json()
    assert (found["status"], found["format"], found["rows"]) == ("processed", "parquet", 2)
    answer = api.get(f"/v1/files/{file}/content")
    assert "notes.jsonl" in answer["Content-Disposition"]
    assert b"".join(answer.streaming_content) == (
        b'{"patient_id": "P1", "note": "it hurts a lot", "age": 41}\n'
        b'{"patient_id": "P2", "note": null, "age": null}\n'
    )
