"""Pages of batches: how to start, one from a file, progress, files and errors, cancelling; whose they are."""

from __future__ import annotations

from typing import Any

from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from modeling.models import Batch
from tenants.models import Tenant
from tenants.scope import scope
from tests.serving.batching import jsonl, request_line, run_all

BAD = jsonl(
    [request_line(1, {"model": "nobodys", "input": "x"}), request_line(2, {"model": "nobodys", "input": "x"})]
)


def start(browser: Client, tenant: Tenant, **form: Any) -> Any:
    return browser.post(f"/t/{tenant.slug}/batches/new/", {"endpoint": "/v1/embeddings", **form})


def upload(content: bytes = BAD) -> SimpleUploadedFile:
    return SimpleUploadedFile("nightly.jsonl", content)


def test_without_any_the_page_says_how(alice: Client, acme: Tenant) -> None:
    page = alice.get(f"/t/{acme.slug}/batches/").content.decode()
    assert "No batch yet" in page
    assert "purpose=batch" in page
    assert "/batches/new/" in page


def test_from_a_file_to_its_errors(alice: Client, acme: Tenant) -> None:
    made = start(alice, acme, file=upload())
    assert made.status_code == 302
    page = alice.get(made.url).content.decode()
    assert "Checking the file" in page
    assert "http-equiv" in page
    assert 'hx-trigger="every 2s"' in page
    run_all()
    assert alice.get(made.url, headers={"hx-request": "true"}).headers["HX-Refresh"] == "true"
    page = alice.get(made.url).content.decode()
    assert "2 of 2 requests" in page
    assert "hx-trigger" not in page
    assert "Download errors" in page
    assert "Download answers" not in page
    errors = alice.get(f"{made.url}error.jsonl")
    assert b"".join(errors.streaming_content).count(b"model_not_found") == 2
    assert alice.get(f"{made.url}output.jsonl").status_code == 404
    listed = alice.get(f"/t/{acme.slug}/batches/").content.decode()
    assert "nightly.jsonl" in listed
    assert "completed" in listed


def test_a_file_uploaded_before(alice: Client, acme: Tenant, api: Any) -> None:
    file = api.upload("earlier.jsonl", b"{broken", "batch").json()["id"]
    form = alice.get(f"/t/{acme.slug}/batches/new/").content.decode()
    assert "earlier.jsonl" in form
    made = start(alice, acme, file_id=file)
    run_all()
    page = alice.get(made.url).content.decode()
    assert "Nothing of this file was run." in page
    assert "invalid_json_line" in page


def test_cancelling_asks_first(alice: Client, acme: Tenant, vera: Client) -> None:
    made = start(alice, acme, file=upload())
    assert "Cancel this batch" in alice.get(made.url).content.decode()
    assert "Cancel this batch" not in vera.get(made.url).content.decode()
    assert vera.post(f"{made.url}cancel/").status_code == 403
    assert alice.post(f"{made.url}cancel/").status_code == 302
    run_all()
    page = alice.get(made.url).content.decode()
    assert "cancelled" in page
    assert "Failed or not run" in page


def test_what_was_not_run_does_not_fill_the_bar(alice: Client, acme: Tenant) -> None:
    made = start(alice, acme, file=upload())
    with scope(acme):
        Batch.objects.of(acme).update(state=Batch.State.CANCELLED, total=5, completed=2, failed=3)
    assert "2 of 5 requests" in alice.get(made.url).content.decode()


def test_nothing_is_made_of_a_refused_form(alice: Client, acme: Tenant) -> None:
    assert start(alice, acme).status_code == 400
    refused = alice.post(
        f"/t/{acme.slug}/batches/new/",
        {"endpoint": "/v1/models", "file": upload()},
        headers={"accept": "application/json"},
    )
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "endpoint")
    with scope(acme):
        assert not Batch.objects.of(acme).exists()


def test_a_stranger_sees_nothing(alice: Client, carol: Client, acme: Tenant, globex: Tenant) -> None:
    made = start(alice, acme, file=upload())
    public_id = made.url.rstrip("/").rsplit("/", 1)[-1]
    for path in (f"{public_id}/", f"{public_id}/error.jsonl"):
        assert carol.get(f"/t/{globex.slug}/batches/{path}").status_code == 404
        assert carol.get(f"/t/{acme.slug}/batches/{path}").status_code == 404
    assert carol.post(f"/t/{globex.slug}/batches/{public_id}/cancel/").status_code == 404
    run_all()
