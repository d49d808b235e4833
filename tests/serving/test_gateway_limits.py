"""Limits: the rate by Valkey's clock, the plan by its counters, bodies by their size."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest
from django.utils import timezone

from billing import plans, queries
from billing.actions import record_usage
from saas.lib import valkey
from tenants.scope import scope
from tests.serving.made import EngineProcess
from tests.serving.speaking import client, in_thread, lifespan
from tests.serving.test_gateway import error, used

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
        before = await in_thread(
            lambda: valkey.client().get(f"t:{acme.pk}:used:tokens:{timezone.now():%Y%m}")
        )
        error(await http.post("/v1/embeddings", json=ASK | {"dimensions": 7}), 400)
        after = await in_thread(lambda: valkey.client().get(f"t:{acme.pk}:used:tokens:{timezone.now():%Y%m}"))
    assert before == after == str((await in_thread(used, acme))["tokens"]).encode()


async def test_bodies(key: str) -> None:
    async with lifespan(), client(key) as http:
        large = await http.post("/v1/embeddings", json=ASK | {"input": "x" * (9 << 20)})
        form = await http.post("/v1/embeddings", data={"model": "minilm-l6"})
        got = await http.get("/v1/embeddings")
    assert error(large, 413)["code"] == "body_too_large"
    assert error(form, 415)
    assert error(got, 405)
    assert got.headers["allow"] == "POST"
