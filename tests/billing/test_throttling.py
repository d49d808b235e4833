"""/v1 outside the gateway: requests a minute by the plan, said in headers, and no limit without Valkey."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from billing import plans, queries, throttling
from saas.lib import valkey


@pytest.fixture(autouse=True)
def _fresh_plans() -> Iterator[None]:
    throttling._plans._kept.clear()
    yield
    throttling._plans._kept.clear()


def test_requests_a_minute(people: Any, acme: Any, globex: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "FREE", dataclasses.replace(plans.FREE, management_requests_per_minute=4))
    api, other = people.api("acme"), people.api("globex")
    answers = [api.get("/v1/models") for _ in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 4 + [429] * 2
    left = [int(answer.headers["x-ratelimit-remaining-requests"]) for answer in answers]
    assert left == [3, 2, 1, 0, 0, 0]
    refused = answers[-1]
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert 1 <= int(refused.headers["retry-after"]) <= 16
    assert refused.headers["x-ratelimit-limit-requests"] == "4"
    assert api.post("/v1/fine_tuning/jobs", {}).status_code == 429  # all of /v1 together
    assert other.get("/v1/models").status_code == 200  # each tenant for itself


def test_without_valkey_there_is_no_limit(
    people: Any, acme: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "FREE", dataclasses.replace(plans.FREE, management_requests_per_minute=1))
    api = people.api("acme")
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    valkey.client.cache_clear()
    try:
        answers = [api.get("/v1/models") for _ in range(3)]
    finally:
        valkey.client.cache_clear()
    assert [answer.status_code for answer in answers] == [200] * 3
    assert "x-ratelimit-limit-requests" not in answers[0].headers
