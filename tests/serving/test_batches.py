"""A batch's file is answered whole: each line once, in order, billed at half; refusals, cancelling, expiry, limits."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from billing import plans
from billing.models import UsageEvent
from modeling.actions import batch_running
from modeling.models import BatchSlice
from modeling.serving import offline
from tenants import actions, vault
from tenants.audit import SYSTEM
from tenants.models import Tenant, VaultObject
from tenants.scope import scope
from tests.serving.batching import (
    change,
    jsonl,
    lines_of,
    make_encoder,
    request_line,
    row,
    run_all,
    started,
)
from tests.serving.made import EngineProcess

ODD = {"model": "minilm-l6", "input": "word1"}  # three tokens


@pytest.fixture(scope="module")
def tiny_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    models = tmp_path_factory.mktemp("models")
    make_encoder(models)
    process = EngineProcess(tmp_path_factory.mktemp("tiny") / "engine.sock", models=models)
    try:
        process.wait_for("minilm-l6", seconds=20)
        yield process
    finally:
        process.stop()


@pytest.fixture(autouse=True)
def _engine(settings: Any, tiny_engine: EngineProcess) -> None:
    settings.ENGINE_SOCKET = tiny_engine.socket


def test_it_works(api: Any, acme: Tenant) -> None:
    lines = [request_line(number) for number in range(40)]
    lines[7]["body"] = {"model": "nobody's", "input": "hello"}
    lines[9]["body"] = {"model": "minilm-l6", "input": "hello", "stream": True}
    batch_id = started(api, jsonl(lines), metadata={"night": "1"})
    run_all()
    body = api.get(f"/v1/batches/{batch_id}").json()
    assert body["status"] == "completed"
    assert body["request_counts"] == {"total": 40, "completed": 38, "failed": 2}
    assert body["metadata"] == {"night": "1"}
    assert body["created_at"] <= body["in_progress_at"] <= body["finalizing_at"] <= body["completed_at"]
    assert body["expires_at"] - body["created_at"] == 24 * 3600
    batch = row(acme, batch_id)
    outputs, errors = lines_of(batch.output_file), lines_of(batch.error_file)
    assert [one["custom_id"] for one in errors] == ["line 7", "line 9"]
    assert [one["response"]["status_code"] for one in errors] == [404, 400]
    assert errors[0]["response"]["body"]["error"]["code"] == "model_not_found"
    assert [one["custom_id"] for one in outputs] == [f"line {n}" for n in range(40) if n not in (7, 9)]
    first = outputs[0]
    assert first["error"] is None
    assert first["response"]["status_code"] == 200
    assert first["response"]["request_id"].startswith("batch_req_")
    assert len(first["response"]["body"]["data"][0]["embedding"]) == 32
    tokens = sum(one["response"]["body"]["usage"]["total_tokens"] for one in outputs)
    with scope(acme):
        used = UsageEvent.objects.of(acme).get()
    assert (used.kind, float(used.quantity)) == ("tokens", tokens // 2)
    assert used.request_id.startswith(batch_id)


def test_halves_are_billed_in_whole_units(api: Any, acme: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_running, "SLICE_LINES", 1)
    monkeypatch.setattr(offline, "AT_ONCE", 1)
    batch_id = started(api, jsonl([request_line(number, ODD) for number in range(7)]))
    run_all()
    with scope(acme):
        parts = [float(one.quantity) for one in UsageEvent.objects.of(acme)]
    batch = row(acme, batch_id)
    assert batch.used["tokens"] % 2 == 1
    assert all(part == int(part) for part in parts)
    assert len(parts) > 1
    assert sum(parts) == batch.used["tokens"] // 2


def test_files_are_read_like_any_other(api: Any, acme: Tenant) -> None:
    content = jsonl([request_line(1)])
    batch_id = started(api, content)
    run_all()
    body = api.get(f"/v1/batches/{batch_id}").json()
    file = api.get(f"/v1/files/{body['output_file_id']}").json()
    assert (file["purpose"], file["status"]) == ("batch_output", "processed")
    answer = b"".join(api.get(f"/v1/files/{file['id']}/content").streaming_content)
    assert len(answer) == file["bytes"]
    assert b"".join(api.get(f"/v1/files/{body['input_file_id']}/content").streaming_content) == content
    assert body["error_file_id"] is None
    assert api.delete(f"/v1/files/{file['id']}").json()["deleted"]


def test_what_was_between_is_destroyed(api: Any, acme: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_running, "SLICE_LINES", 5)
    batch_id = started(api, jsonl([request_line(number) for number in range(60)]))
    assert run_all() > 3
    batch = row(acme, batch_id)
    assert [one["custom_id"] for one in lines_of(batch.output_file)] == [f"line {n}" for n in range(60)]
    with scope(acme):
        assert not BatchSlice.objects.of(acme).exists()
        slices = VaultObject.objects.of(acme).filter(kind="batch")
        assert slices.count() == batch.slices
        assert not slices.filter(destroyed_at=None).exists()


def test_a_wrong_file_runs_not_at_all(api: Any, acme: Tenant) -> None:
    good = request_line(1)
    wrong = (
        jsonl([good, good, request_line(2, url="/v1/classify"), request_line(3) | {"body": 3}]) + b"\n{no\n"
    )
    batch_id = started(api, wrong)
    run_all()
    body = api.get(f"/v1/batches/{batch_id}").json()
    assert body["status"] == "failed"
    assert body["failed_at"]
    assert [(one["line"], one["code"], one["param"]) for one in body["errors"]["data"]] == [
        (2, "duplicate_custom_id", "custom_id"),
        (3, "mismatched_endpoint", "url"),
        (4, "invalid_value", "body"),
        (6, "invalid_json_line", None),
    ]
    with scope(acme):
        assert not UsageEvent.objects.of(acme).exists()


HOSTILE_LINES = (
    b"\xff\xfe\x00",
    b"[" * 100_000,
    b'{"custom_id": "\\ud800", "method": "POST", "url": "/v1/embeddings", "body": {}}',
    b'{"custom_id": "a\\u0000", "method": "POST", "url": "/v1/embeddings", "body": {}}',
    b'{"custom_id": 7, "method": "POST", "url": "/v1/embeddings", "body": {}}',
    b'{"custom_id": "a", "custom_id": "b", "method": "POST", "url": "/v1/embeddings", "body": {}}',
    b'{"custom_id": "a", "method": "GET", "url": "/v1/embeddings", "body": {}}',
    b'{"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": {}, "extra": 1}',
    b'{"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": {"n": NaN}}',
    b"x" * ((8 << 20) + 1),
)


def test_hostile_lines_are_named(api: Any, acme: Tenant) -> None:
    batch_id = started(api, b"\n\n".join(HOSTILE_LINES))
    run_all()
    errors = api.get(f"/v1/batches/{batch_id}").json()["errors"]["data"]
    assert [one["line"] for one in errors] == [2 * number + 1 for number in range(len(HOSTILE_LINES))]


def test_hostile_bodies_fail_their_lines_alone(api: Any, acme: Tenant) -> None:
    good = {"model": "minilm-l6", "input": "word1"}
    bodies: list[Any] = [
        {},
        {"model": 3},
        good | {"input": [[1]]},
        good | {"input": "\ud800"},
        good | {"x": 1},
    ]
    bodies += [good | {"input": "a\0"}, good | {"model": "ft:" + "x" * 500}, good]
    lines = [request_line(number, body or {"nothing": 1}) for number, body in enumerate(bodies)]
    batch_id = started(api, b"\xef\xbb\xbf" + jsonl(lines))
    run_all()
    batch = row(acme, batch_id)
    assert (batch.state, batch.completed, batch.failed) == ("completed", 1, len(bodies) - 1)
    statuses = {one["response"]["status_code"] for one in lines_of(batch.error_file)}
    assert statuses <= {400, 404}


def test_the_start_is_refused(api: Any, acme: Tenant, people: Any) -> None:
    file = api.upload("a.jsonl", jsonl([request_line(1)]), "batch").json()["id"]
    body = {"input_file_id": file, "endpoint": "/v1/embeddings", "completion_window": "24h"}

    def code(**changes: Any) -> tuple[int, str]:
        answer = api.post("/v1/batches", body | changes)
        return answer.status_code, answer.json()["error"]["param"]

    assert code(endpoint="/v1/models") == (400, "endpoint")
    assert code(completion_window="1h") == (400, "completion_window")
    assert code(input_file_id="file-nobody") == (404, "input_file_id")
    assert code(metadata={"a": "b" * 600})[0] == 400
    assert code(metadata={str(number): "" for number in range(17)}) == (400, "metadata")
    records = api.upload("b.csv", b"a,b\n1,2\n").json()["id"]
    assert code(input_file_id=records) == (400, "input_file_id")
    assert people.api("acme", "files").post("/v1/batches", body).status_code == 403
    assert people.api("globex").post("/v1/batches", body).status_code == 404
    run_all()


def test_the_plan_bounds_how_many_are_open(api: Any, acme: Tenant) -> None:
    content = jsonl([request_line(1)])
    for _number in range(plans.FREE.open_batches):
        started(api, content)
    file = api.upload("a.jsonl", content, "batch").json()["id"]
    body = {"input_file_id": file, "endpoint": "/v1/embeddings", "completion_window": "24h"}
    refused = api.post("/v1/batches", body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (402, "plan_limit")
    run_all()
    assert api.post("/v1/batches", body).status_code == 200
    run_all()


def test_the_same_key_starts_one_batch(api: Any, acme: Tenant) -> None:
    file = api.upload("a.jsonl", jsonl([request_line(1)]), "batch").json()["id"]
    body = {"input_file_id": file, "endpoint": "/v1/embeddings", "completion_window": "24h"}
    made = [api.post("/v1/batches", body, **{"idempotency-key": "k"}).json()["id"] for _number in range(2)]
    assert made[0] == made[1]
    run_all()


def test_the_month_ends_in_the_middle(api: Any, acme: Tenant) -> None:
    left = 20
    with scope(acme):
        UsageEvent.objects.of(acme).create(
            kind="tokens", quantity=plans.FREE.tokens - left, request_id="earlier", at=timezone.now()
        )
    batch_id = started(api, jsonl([request_line(number) for number in range(60)]))
    run_all()
    batch = row(acme, batch_id)
    errors = lines_of(batch.error_file)
    assert (batch.state, batch.completed + batch.failed) == ("completed", 60)
    assert batch.completed
    assert {one["response"]["status_code"] for one in errors} == {402}
    assert errors[0]["response"]["body"]["error"]["code"] == "plan_limit"


def test_cancelling_keeps_what_was_answered(api: Any, acme: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_running, "SLICE_LINES", 5)
    batch_id = started(api, jsonl([request_line(number) for number in range(80)]))
    while row(acme, batch_id).completed == 0:
        assert batch_running.run_next()
    assert api.post(f"/v1/batches/{batch_id}/cancel").json()["status"] == "cancelling"
    file_id = api.get(f"/v1/batches/{batch_id}").json()["input_file_id"]
    assert api.delete(f"/v1/files/{file_id}").json()["error"]["code"] == "file_in_use"
    run_all()
    batch = row(acme, batch_id)
    assert batch.state == "cancelled"
    outputs, errors = lines_of(batch.output_file), lines_of(batch.error_file)
    assert 0 < len(outputs) < 80
    assert [one["custom_id"] for one in outputs + errors] == [f"line {n}" for n in range(80)]
    assert {one["error"]["code"] for one in errors} == {"batch_cancelled"}
    assert (batch.completed, batch.failed) == (len(outputs), len(errors))
    again = api.post(f"/v1/batches/{batch_id}/cancel")
    assert (again.status_code, again.json()["error"]["code"]) == (409, "batch_ended")
    assert api.delete(f"/v1/files/{file_id}").status_code == 200


def test_answers_have_a_bound(api: Any, acme: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_running, "SLICE_LINES", 5)
    monkeypatch.setattr(batch_running, "MOST_OUTPUT_BYTES", 1)
    batch_id = started(api, jsonl([request_line(number) for number in range(80)]))
    run_all()
    batch = row(acme, batch_id)
    outputs, errors = lines_of(batch.output_file), lines_of(batch.error_file)
    assert batch.state == "completed"
    assert 0 < len(outputs) < 80
    assert [one["custom_id"] for one in outputs + errors] == [f"line {n}" for n in range(80)]
    assert {one["error"]["code"] for one in errors} == {"batch_output_too_large"}


def test_after_a_day_the_rest_expires(api: Any, acme: Tenant) -> None:
    batch_id = started(api, jsonl([request_line(number) for number in range(10)]))
    change(acme, batch_id, expires_at=timezone.now())
    run_all()
    batch = row(acme, batch_id)
    assert (batch.state, batch.completed, batch.failed) == ("expired", 0, 10)
    assert {one["error"]["code"] for one in lines_of(batch.error_file)} == {"batch_expired"}


def test_a_suspended_tenant_waits(api: Any, acme: Tenant) -> None:
    batch_id = started(api, jsonl([request_line(1)]))
    actions.suspend_tenant(acme, reason="a test", actor=SYSTEM)
    run_all()
    assert row(acme, batch_id).state == "validating"
    actions.restore_tenant(acme, reason="a test", actor=SYSTEM)
    run_all()
    assert row(acme, batch_id).state == "completed"


def test_without_an_engine_nothing_is_lost(api: Any, acme: Tenant, settings: Any, tmp_path: Any) -> None:
    settings.ENGINE_PATIENCE_SECONDS = 0.1
    there, settings.ENGINE_SOCKET = settings.ENGINE_SOCKET, tmp_path / "nobody.sock"
    batch_id = started(api, jsonl([request_line(number) for number in range(3)]))
    assert batch_running.run_next()  # checks the file
    batch_running.SLICE_SECONDS, before = 0.3, batch_running.SLICE_SECONDS
    try:
        assert batch_running.run_next()
    finally:
        batch_running.SLICE_SECONDS = before
    waiting = row(acme, batch_id)
    assert (waiting.state, waiting.completed, waiting.failed) == ("in_progress", 0, 0)
    assert waiting.wait_until is not None
    settings.ENGINE_SOCKET = there
    change(acme, batch_id, wait_until=None)
    run_all()
    assert row(acme, batch_id).completed == 3


def test_who_lost_the_lease_writes_nothing(api: Any, acme: Tenant) -> None:
    batch_id = started(api, jsonl([request_line(number) for number in range(3)]))
    assert batch_running.run_next()
    late = claimed()
    change(acme, batch_id, lease_until=timezone.now() - timedelta(seconds=1))
    run_all()
    before = row(acme, batch_id)
    assert not batch_running.commit(late, [], ends_as=None)
    after = row(acme, batch_id)
    assert (after.state, after.offset, after.slices) == (before.state, before.offset, before.slices)
    assert len(lines_of(after.output_file)) == 3


def claimed() -> batch_running.Lease:
    """A claim on whatever is next."""
    lease = batch_running.claim(batch_running._in_turn()[0])
    assert lease is not None
    return lease


def test_tenants_take_turns(
    api: Any, globex_api: Any, acme: Tenant, globex: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_running, "SLICE_LINES", 4)
    content = jsonl([request_line(number) for number in range(64)])
    mine = [started(api, content) for _number in range(2)]
    theirs = started(globex_api, content)
    while row(globex, theirs).state not in ("finalizing", "completed"):
        assert batch_running.run_next()
    done = sum(row(acme, one).completed for one in mine)
    assert 32 <= done <= 96, "two batches of one tenant go on as fast as the one of the other"
    run_all()
    assert [row(acme, one).completed for one in mine] == [64, 64]


def test_only_so_many_slices_run_at_once(api: Any, acme: Tenant, settings: Any) -> None:
    batch_id = started(api, jsonl([request_line(1)]))
    change(acme, batch_id, lease_until=timezone.now() + timedelta(seconds=30))
    second = started(api, jsonl([request_line(1)]))
    assert not batch_running.run_next()
    settings.BATCH_SLOTS = 2
    assert batch_running.run_next()
    change(acme, batch_id, lease_until=None)
    run_all()
    assert row(acme, second).state == "completed"


def test_nothing_is_in_clear_on_disk(api: Any, acme: Tenant, settings: Any) -> None:
    canary = f"canary{acme.pk.hex}"
    lines = [request_line(1, {"model": "minilm-l6", "input": canary}), request_line(2)]
    lines[1]["custom_id"] = canary
    batch_id = started(api, jsonl(lines))
    run_all()
    batch = row(acme, batch_id)
    assert batch.output_file is not None
    assert batch.output_file.object is not None
    with scope(acme):
        assert canary.encode() in vault.get(batch.output_file.object)
    for file in settings.OBJECTS_DIR.rglob("*"):
        assert not file.is_file() or canary.encode() not in file.read_bytes()
