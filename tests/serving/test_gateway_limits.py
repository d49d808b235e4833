"""Limits: the rate by Valkey's clock, the plan by its counters, bodies by their size."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest
from django.db import OperationalError
from django.utils import timezone

from billing import plans, queries
from billing.actions import record_usage
from modeling.serving import gateway_auth, gateway_open
from saas.lib import valkey
from tenants.scope import scope
from tests.serving.made import EngineProcess
from tests.serving.speaking import Stream, client, in_thread, lifespan
from tests.serving.test_gateway import STORY, error, used

pytestmark = [pytest.mark.real_weights, pytest.mark.asyncio]
ASK = {"model": "minilm-l6", "input": "hello"}


@pytest.fixture(autouse=True)
def _engine(settings: Any, engine: EngineProcess) -> None:
    settings.ENGINE_SOCKET = engine.socket


@pytest.fixture
def key(people: Any, acme: Any) -> str:
    secret: str = people.key(acme, "predict")
    return secret


async def test_the_rate(key: str, acme: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "FREE", dataclasses.replace(plans.FREE, requests_per_minute=20))
    async with lifespan(), client(key) as http:
        answers = await asyncio.gather(*(http.post("/v1/embeddings", json=ASK) for _ in range(40)))
    good = [answer for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert 20 <= len(good) <= 22
    assert len(good) + len(refused) == 40
    body = error(refused[0], 429)
    assert (body["code"], body["type"]) == ("rate_limit_exceeded", "requests")
    assert 1 <= int(refused[0].headers["retry-after"]) <= 4
    assert refused[0].headers["x-ratelimit-remaining-requests"] == "0"


async def test_the_plan_after_its_counter_is_rebuilt(key: str, acme: Any) -> None:
    def use_up() -> None:
        with scope(acme):
            record_usage(acme, "tokens", plans.FREE.tokens - 3, "earlier", at=timezone.now())

    await in_thread(use_up)
    async with lifespan(), client(key) as http:
        first = await http.post("/v1/embeddings", json=ASK)
        second = await http.post("/v1/embeddings", json=ASK)
    assert first.status_code == 200  # 3 tokens were left
    body = error(second, 402)
    assert body["code"] == "plan_limit"
    assert "200,000" in body["message"]


async def test_a_failed_request_costs_nothing(key: str, acme: Any) -> None:
    async with lifespan(), client(key) as http:
        await http.post("/v1/embeddings", json=ASK)
        error(await http.post("/v1/embeddings", json=ASK | {"dimensions": 7}), 400)
    # at the stop the last corrections, which nobody waits for, are made
    after = await in_thread(lambda: valkey.client().get(f"t:{acme.pk}:used:tokens:{timezone.now():%Y%m}"))
    assert after == str((await in_thread(used, acme))["tokens"]).encode()


async def test_bodies(key: str) -> None:
    async with lifespan(), client(key) as http:
        large = await http.post("/v1/embeddings", json=ASK | {"input": "x" * (9 << 20)})
        form = await http.post("/v1/embeddings", data={"model": "minilm-l6"})
        got = await http.get("/v1/embeddings")
    assert error(large, 413)["code"] == "body_too_large"
    assert error(form, 415)
    assert error(got, 405)
    assert got.headers["allow"] == "POST"


async def test_tokens_a_minute(key: str, acme: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "FREE", dataclasses.replace(plans.FREE, tokens_per_minute=600))
    ask = ASK | {"input": "word " * 150}  # about 152 tokens, in about 800 bytes
    async with lifespan(), client(key) as http:
        answers = [await http.post("/v1/embeddings", json=ask) for _ in range(5)]
    statuses = [answer.status_code for answer in answers]
    assert statuses[:3] == [200, 200, 200]
    assert statuses[-1] == 429
    good = [answer for answer in answers if answer.status_code == 200]
    assert {answer.headers["x-ratelimit-limit-tokens"] for answer in answers} == {"600"}
    left = [int(answer.headers["x-ratelimit-remaining-tokens"]) for answer in good]
    assert left == sorted(left, reverse=True)
    assert left[0] > 300
    body = error(answers[-1], 429)
    assert (body["code"], body["type"]) == ("rate_limit_exceeded", "tokens")
    assert answers[-1].headers["x-ratelimit-reset-tokens"].endswith("s")
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60


async def test_a_request_larger_than_the_bucket_passes_when_it_is_full(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "FREE", dataclasses.replace(plans.FREE, tokens_per_minute=50))
    async with lifespan(), client(key) as http:
        first = await http.post("/v1/embeddings", json=ASK | {"input": "word " * 150})
        second = await http.post("/v1/embeddings", json=ASK)
    assert (first.status_code, second.status_code) == (200, 429)


async def test_a_tenants_requests_at_once(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_open, "MOST_OF_TENANT", 2)
    talk = {"model": "smollm2-135m", "messages": STORY, "max_tokens": 1500, "stream": True}
    async with lifespan(), client(key) as http:
        streams = [Stream(key, "/v1/chat/completions", talk) for _ in range(2)]
        await asyncio.gather(*(stream.events(1) for stream in streams))
        refused = await http.post("/v1/embeddings", json=ASK)
        for stream in streams:
            stream.leave()
        await asyncio.gather(*(stream.rest() for stream in streams))
        after = await http.post("/v1/embeddings", json=ASK)
    assert error(refused, 429)["code"] == "too_many_at_once"
    assert refused.headers["retry-after"] == "1"
    assert after.status_code == 200


async def test_large_bodies_are_bounded_together(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_open, "MOST_BODY_BYTES", 3 << 20)
    monkeypatch.setattr(queries, "FREE", dataclasses.replace(plans.FREE, tokens_per_minute=10_000_000))
    large = ASK | {"input": ["x" * 90_000] * 12}  # 1.08 MB; more than the model reads, so it is cut short
    async with lifespan(), client(key) as http:
        answers = await asyncio.gather(*(http.post("/v1/embeddings", json=large) for _ in range(6)))
        small = await http.post("/v1/embeddings", json=ASK)
    codes = [answer.json()["error"]["code"] for answer in answers if answer.status_code == 429]
    assert 1 <= len(codes) <= 5
    assert set(codes) == {"too_many_at_once"}
    assert small.status_code == 200


async def test_no_database_is_said_so(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise OperationalError("the database is away")

    monkeypatch.setattr(gateway_auth, "authenticate_key", broken)
    async with lifespan(), client(key) as http:
        refused = await http.post("/v1/embeddings", json=ASK)
    assert error(refused, 503)["code"] == "database_unavailable"
