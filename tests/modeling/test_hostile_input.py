"""Hostile input: numbers without end, NUL, halves of surrogates, deep nesting. Refused in sentences, never echoed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client

from modeling.serving.gateway_fields import Fields
from modeling.watching import check_origin
from saas.lib.errors import Forbidden, Refusal

JOBS = "/v1/fine_tuning/jobs"
CANARY = "canary"


def calm(api: Any) -> Client:
    """A client that shows a bug as the 500 that it is."""
    return Client(headers={"authorization": f"Bearer {api.key}"}, raise_request_exception=False)


@pytest.mark.parametrize(
    "path",
    [
        f"/v1/files?limit={'9' * 5000}",
        "/v1/files/%00",
        "/v1/files?after=%00",
        "/v1/files?purpose=%00",
        "/v1/models/%00",
        f"{JOBS}/%00",
    ],
)
def test_addresses(api: Any, path: str) -> None:
    answer = calm(api).get(path)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


def test_addresses_of_pages(acme: Any, alice: Client) -> None:
    alice.raise_request_exception = False
    for path in ("data/%00/", "training/%00/", "training/?after=%00"):
        assert alice.get(f"/t/{acme.slug}/{path}").status_code == 400


@pytest.mark.parametrize("raw", ["[" * 100_000, '{"a":' * 100_000], ids=["lists", "objects"])
def test_deep_nesting(api: Any, raw: str) -> None:
    answer = calm(api).post(JOBS, raw, "application/json")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "parse_error")


@pytest.mark.parametrize(
    "more",
    [
        {"method": "\0"},
        {"method": "\ud800"},
        {"columns": {"\0": "a"}},
        {"columns": {"\ud800": "a"}},
        {"columns": {CANARY: "a"}},
        {"privacy": {"mode": CANARY}},
        {"privacy": {"epsilon": 10**400}},
    ],
    ids=str,
)
def test_jobs(api: Any, words_file: str, more: dict[str, Any]) -> None:
    answer = calm(api).post(JOBS, json.dumps({"training_file": words_file, **more}), "application/json")
    assert answer.status_code == 400
    assert CANARY not in answer.content.decode()


def test_a_conversation(acme: Any, bob: Client) -> None:
    bob.raise_request_exception = False
    chat = f"/t/{acme.slug}/playground/chat/"
    assert bob.post(chat, "[" * 100_000, "application/json").status_code == 400
    assert bob.post(chat, json.dumps("x" * 1_100_000), "application/json").status_code == 413


def test_a_number_too_large_for_the_gateway() -> None:
    with pytest.raises(Refusal):
        Fields({"temperature": 10**400}).number("temperature", low=0, high=2)
    with pytest.raises(Refusal):
        Fields({"temperature": float("nan")}).number("temperature", low=0, high=2)


def test_a_file_for_a_page_that_takes_none() -> None:
    browser = Client(raise_request_exception=False, enforce_csrf_checks=True)
    browser.get("/accounts/login/")
    assert browser.post("/accounts/login/", {"login": SimpleUploadedFile("a.txt", b"x")}).status_code == 400


def test_an_origin_that_is_no_address() -> None:
    with pytest.raises(Forbidden):
        check_origin({b"origin": b"http://["})


def test_a_slow_upload_holds_no_database_connection(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from modeling.uploads import VaultUploadHandler

    held: list[bool] = []
    taking = VaultUploadHandler.receive_data_chunk

    def look(self: Any, raw_data: bytes, start: int) -> bytes | None:
        held.append(connection.connection is not None)
        return taking(self, raw_data, start)

    monkeypatch.setattr(VaultUploadHandler, "receive_data_chunk", look)
    assert api.upload("a.csv", b"a,b\n1,2\n").status_code == 200
    assert held == [False]
