"""Idempotency-Key on hot calls: answered and billed once, also when a gateway is killed in the middle."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

from modeling.serving import gateway_idempotency
from modeling.serving.targets import Route
from saas.lib import valkey
from tests.serving.made import EngineProcess
from tests.serving.speaking import client, in_thread, leave_after, lifespan
from tests.serving.test_gateway import STORY, error, used

pytestmark = [pytest.mark.real_weights, pytest.mark.asyncio]
CHAT = {"model": "smollm2-135m", "messages": STORY, "max_tokens": 6, "temperature": 2.0}
ONCE = {"idempotency-key": "once"}


@pytest.fixture(autouse=True)
def _engine(settings: Any, engine: EngineProcess) -> None:
    settings.ENGINE_SOCKET = engine.socket


@pytest.fixture
def key(people: Any, acme: Any) -> str:
    secret: str = people.key(acme, "predict")
    return secret


@pytest.fixture
def keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tenant lets answers be kept for a day."""
    pick = Route.pick

    def kept(route: Route) -> Any:
        object.__setattr__(route, "rules", dataclasses.replace(route.rules, log_days=1))
        return pick(route)

    monkeypatch.setattr(Route, "pick", kept)


def remembered(tenant: Any) -> list[dict[bytes, bytes]]:
    """What Valkey holds of this tenant's idempotency keys."""
    found = valkey.client().keys(f"t:{tenant.pk}:once:*")
    return [valkey.client().hgetall(name) for name in found]  # type: ignore[union-attr, misc]


async def test_a_repeat_gets_the_same_answer_and_is_billed_once(key: str, acme: Any, keeps: None) -> None:
    async with lifespan(), client(key) as http:
        first = await http.post("/v1/chat/completions", json=CHAT, headers=ONCE)
        again = await http.post("/v1/chat/completions", json=CHAT, headers=ONCE)
        other = await http.post("/v1/chat/completions", json=CHAT | {"max_tokens": 5}, headers=ONCE)
        fresh = await http.post("/v1/chat/completions", json=CHAT, headers={"idempotency-key": "twice"})
    assert first.status_code == 200, first.text
    assert again.json() == first.json()
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert int(again.headers["x-ratelimit-remaining-requests"]) < 600
    assert error(other, 422)["code"] == "idempotency_key_reused"
    assert fresh.json()["id"] != first.json()["id"]
    spent = sum(one.json()["usage"]["total_tokens"] for one in (first, fresh))
    assert await in_thread(used, acme) == {"tokens": spent}
    held = b"".join(b"".join(one.values()) for one in await in_thread(remembered, acme))
    assert first.json()["choices"][0]["message"]["content"].encode() not in held


async def test_without_retention_a_repeat_is_answered_anew_and_billed_once(key: str, acme: Any) -> None:
    async with lifespan(), client(key) as http:
        first = await http.post("/v1/chat/completions", json=CHAT, headers=ONCE)
        again = await http.post("/v1/chat/completions", json=CHAT, headers=ONCE)
    assert again.json()["id"] != first.json()["id"]
    assert [set(one) for one in await in_thread(remembered, acme)] == [
        {b"digest", b"id", b"until", b"answered"}
    ]
    assert (await in_thread(used, acme))["tokens"] == first.json()["usage"]["total_tokens"]


async def test_a_key_without_a_kept_answer_draws_no_answers_without_end(key: str, acme: Any) -> None:
    """Repeats are answered anew and not billed: a few for what got lost, not one free answer after another."""
    ask = {"model": "minilm-l6", "input": "hello"}
    async with lifespan(), client(key) as http:
        answers = [
            await http.post("/v1/embeddings", json=ask, headers=ONCE)
            for _ in range(gateway_idempotency.MOST_ANSWERS + 1)
        ]
        refused = [
            await http.post("/v1/embeddings", json=ask | {"dimensions": 7}, headers={"idempotency-key": "no"})
            for _ in range(gateway_idempotency.MOST_ANSWERS + 2)
        ]
    assert {one.status_code for one in answers[:-1]} == {200}
    assert error(answers[-1], 422)["code"] == "idempotency_key_used_up"
    assert {one.status_code for one in refused} == {400}, "what was not answered may be repeated"
    assert (await in_thread(used, acme))["tokens"] == answers[0].json()["usage"]["total_tokens"]


async def test_a_repeat_waits_for_the_first(key: str) -> None:
    long = CHAT | {"max_tokens": 40}
    async with lifespan(), client(key) as http:
        first = asyncio.create_task(http.post("/v1/chat/completions", json=long, headers=ONCE))
        await asyncio.sleep(0.1)
        again = await http.post("/v1/chat/completions", json=long, headers=ONCE)
        assert (await first).status_code == 200
    assert error(again, 409)["code"] == "idempotency_in_progress"
    assert again.headers["retry-after"] == "1"


async def test_a_killed_gateways_claim_runs_out_and_its_id_is_billed(
    key: str, acme: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim of a process that dies is neither renewed nor released: only its time ends it."""

    async def nothing(claim: Any, *_: Any) -> None:
        claim._renewing.cancel()

    monkeypatch.setattr(gateway_idempotency, "CLAIM_MILLISECONDS", 600)
    async with lifespan(), client(key) as http:
        with monkeypatch.context() as dead:
            dead.setattr(gateway_idempotency.Claim, "release", nothing)
            first = await http.post("/v1/chat/completions", json=CHAT, headers=ONCE)
        early = await http.post("/v1/chat/completions", json=CHAT, headers=ONCE)
        await asyncio.sleep(0.7)
        late = await http.post("/v1/chat/completions", json=CHAT, headers=ONCE)
    assert (first.status_code, early.status_code, late.status_code) == (200, 409, 200)
    assert (await in_thread(used, acme))["tokens"] == first.json()["usage"]["total_tokens"]


async def test_a_refused_or_abandoned_request_frees_its_key(key: str, acme: Any) -> None:
    async with lifespan(), client(key) as http:
        bad = CHAT | {"temperature": 9}
        for _ in range(2):
            error(await http.post("/v1/chat/completions", json=bad, headers=ONCE), 400)
        name = {"idempotency-key": "left"}
        assert (
            await leave_after(key, "/v1/chat/completions", CHAT | {"max_tokens": 90}, events=0, **name) == []
        )
        assert await in_thread(used, acme) == {}
        answered = await http.post("/v1/chat/completions", json=CHAT | {"max_tokens": 90}, headers=name)
    assert answered.status_code == 200


async def test_streams_take_no_key(key: str, acme: Any) -> None:
    async with lifespan(), client(key) as http:
        for _ in range(2):
            answer = await http.post("/v1/chat/completions", json=CHAT | {"stream": True}, headers=ONCE)
            assert answer.text.endswith("data: [DONE]\n\n")
    assert await in_thread(remembered, acme) == []


async def test_keys_are_bounded(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_idempotency, "MOST_BYTES", 3 * gateway_idempotency.ENTRY_BYTES)
    ask = {"model": "minilm-l6", "input": "hello"}
    async with lifespan(), client(key) as http:
        answers = [
            await http.post("/v1/embeddings", json=ask, headers={"idempotency-key": f"k{number}"})
            for number in range(4)
        ]
        long = await http.post("/v1/embeddings", json=ask, headers={"idempotency-key": "k" * 256})
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert error(answers[3], 429)["code"] == "too_many_idempotency_keys"
    assert error(long, 400)["param"] == "Idempotency-Key"


async def test_without_valkey_nothing_is_promised(key: str, settings: Any) -> None:
    settings.REDIS_URL = "redis://127.0.0.1:1/0"
    ask = {"model": "minilm-l6", "input": "hello"}
    async with lifespan(), client(key) as http:
        assert (await http.post("/v1/embeddings", json=ask)).status_code == 200
        refused = await http.post("/v1/embeddings", json=ask, headers=ONCE)
    assert error(refused, 503)["code"] == "idempotency_unavailable"
