"""A client's own deadline: 504 when it passes, and the engine stops."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from tests.serving.made import EngineProcess
from tests.serving.speaking import Stream, client, in_thread, lifespan
from tests.serving.test_gateway import STORY, error, used

pytestmark = [pytest.mark.real_weights, pytest.mark.asyncio]
CHAT = {"model": "smollm2-135m", "messages": STORY, "max_tokens": 1500, "temperature": 0}


@pytest.fixture(autouse=True)
def _engine(settings: Any, engine: EngineProcess) -> None:
    settings.ENGINE_SOCKET = engine.socket


@pytest.fixture
def key(people: Any, acme: Any) -> str:
    secret: str = people.key(acme, "predict")
    return secret


async def test_time_runs_out(key: str, acme: Any, engine: EngineProcess) -> None:
    async with lifespan(), client(key) as http:
        first = await http.post("/v1/chat/completions", json=CHAT | {"max_tokens": 1})  # the model is loaded
        began = time.monotonic()
        late = await http.post("/v1/chat/completions", json=CHAT, headers={"x-request-timeout-ms": "400"})
        seconds = time.monotonic() - began
        for _ in range(20):
            if (await in_thread(engine.ask, "health"))["counts"]["smollm2-135m"]["active"] == 0:
                break
            await asyncio.sleep(0.05)
        else:
            raise AssertionError("the engine still generates")
    assert error(late, 504)["code"] == "timeout"
    assert 0.4 <= seconds < 1.5
    assert await in_thread(used, acme) == {"tokens": first.json()["usage"]["total_tokens"]}


async def test_a_streams_time_runs_out(key: str, acme: Any) -> None:
    async with lifespan():
        stream = Stream(
            key, "/v1/chat/completions", CHAT | {"stream": True}, **{"x-request-timeout-ms": "900"}
        )
        events = await stream.rest()
    assert json.loads(events[-1])["error"]["code"] == "timeout"
    assert (await in_thread(used, acme))["tokens"] >= len(events) - 2 + 39


async def test_a_deadline_is_a_number_and_cannot_lengthen_the_routes_own(key: str) -> None:
    ask = {"model": "minilm-l6", "input": "hello"}
    async with lifespan(), client(key) as http:
        for wrong in ("soon", "-5", "0", "1.5", "9" * 12):
            refused = await http.post("/v1/embeddings", json=ask, headers={"x-request-timeout-ms": wrong})
            assert error(refused, 400)["param"] == "x-request-timeout-ms"
        fine = await http.post("/v1/embeddings", json=ask, headers={"x-request-timeout-ms": "999999999"})
    assert fine.status_code == 200
