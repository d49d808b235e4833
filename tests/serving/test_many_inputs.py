"""Requests of a thousand inputs: answered whole and in order, while others' single inputs do not wait behind them."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from modeling.serving import gateway_parts
from modeling.serving.batching import FairQueue, Row
from modeling.serving.gateway_parts import PART_TOKENS, parts
from tests.serving.made import EngineProcess, head_parts
from tests.serving.speaking import client, in_thread, lifespan, make_version

pytestmark = pytest.mark.asyncio
MANY = 1_000


def test_no_part_is_more_than_a_tenant_may_have_waiting() -> None:
    queue: FairQueue[Row] = FairQueue()
    assert queue.max_waiting_tokens * queue.max_tenant_share >= 2 * PART_TOKENS
    inputs = ["short"] * 10 + ["long " * 500] * MANY + ["x"] * MANY
    cut = list(parts(inputs))
    assert [text for part in cut for text in part] == inputs
    assert all(sum(min(256, len(text) + 2) for text in part) <= PART_TOKENS for part in cut)
    assert list(parts(["one"])) == [["one"]]


async def test_a_single_row_is_in_the_next_batch_whatever_waits_before_it() -> None:
    queue: FairQueue[Row] = FairQueue()
    loop = asyncio.get_running_loop()

    def row() -> Row:
        return Row((0,) * 20, loop.create_future(), loop.time() + 60)

    queue.put("many", [row() for _ in range(MANY)])
    queue.take(loop.time())
    single = row()
    queue.put("single", [single])
    assert any(taken is single for taken in queue.take(loop.time()))


def wait_for_queue(engine: EngineProcess) -> None:
    """Return once rows wait in the engine."""
    while not engine.ask("health")["waiting_tokens"]:
        time.sleep(0.005)


@pytest.mark.real_weights
async def test_a_thousand_inputs_and_a_neighbour(
    settings: Any, engine: EngineProcess, people: Any, acme: Any, globex: Any
) -> None:
    settings.ENGINE_SOCKET = engine.socket
    keys = [await in_thread(people.key, tenant, "predict") for tenant in (acme, globex)]
    many = await in_thread(make_version, acme, *head_parts(5, 1))
    one = await in_thread(make_version, globex, *head_parts(3, 2))
    inputs = [f"note {number}" for number in range(MANY)]
    ended: list[str] = []

    async def ask(http: Any, name: str, model: str, texts: list[str]) -> Any:
        response = await http.post("/v1/classify", json={"model": model, "inputs": texts})
        ended.append(name)
        assert response.status_code == 200, response.text
        return response.json()

    async with lifespan(), client(keys[0]) as first, client(keys[1]) as second:
        await ask(second, "warm", one.name, ["hello"])
        under_way = asyncio.create_task(ask(first, "many", many.name, inputs))
        await in_thread(wait_for_queue, engine)
        await ask(second, "one", one.name, ["hello"])
        whole = await under_way
        alone = await ask(first, "check", many.name, inputs[-1:])
    assert ended[:3] == ["warm", "one", "many"]
    assert whole["usage"]["predictions"] == len(whole["results"]) == MANY
    assert whole["results"][-1]["confidence"] == pytest.approx(alone["results"][0]["confidence"], abs=1e-4)


@pytest.mark.real_weights
async def test_parts_add_up_to_the_whole(
    settings: Any, engine: EngineProcess, people: Any, acme: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.ENGINE_SOCKET = engine.socket
    key = await in_thread(people.key, acme, "predict")
    model = await in_thread(make_version, acme, *head_parts(5, 1))
    inputs = [f"text {number} " * (number % 9 + 1) for number in range(40)]
    async with lifespan(), client(key) as http:
        body, vectors = {"model": model.name, "inputs": inputs}, {"model": "minilm-l6", "input": inputs}
        whole = [
            (await http.post("/v1/classify", json=body)).json(),
            (await http.post("/v1/embeddings", json=vectors)).json(),
        ]
        monkeypatch.setattr(gateway_parts.parts, "__defaults__", (200,))
        assert len(list(parts(inputs))) > 5
        cut = [
            (await http.post("/v1/classify", json=body)).json(),
            (await http.post("/v1/embeddings", json=vectors)).json(),
        ]
    assert cut[0]["usage"] == whole[0]["usage"]
    assert cut[1]["usage"] == whole[1]["usage"]
    for ours, theirs in zip(cut[0]["results"], whole[0]["results"], strict=True):
        assert ours["confidence"] == pytest.approx(theirs["confidence"], abs=1e-4)
    for at, (ours, theirs) in enumerate(zip(cut[1]["data"], whole[1]["data"], strict=True)):
        assert ours["index"] == at
        assert ours["embedding"] == pytest.approx(theirs["embedding"], abs=1e-4)


@pytest.mark.real_weights
async def test_more_than_the_body_may_hold_is_said_at_once(
    settings: Any, engine: EngineProcess, people: Any, acme: Any
) -> None:
    settings.ENGINE_SOCKET = engine.socket
    key = await in_thread(people.key, acme, "predict")
    async with lifespan(), client(key) as http:
        inputs = ["long " * 2_000] * MANY
        refused = await http.post("/v1/classify", json={"model": "any", "inputs": inputs})
        too_many = await http.post("/v1/classify", json={"model": "any", "inputs": ["x"] * 2049})
    assert (refused.status_code, refused.json()["error"]["code"]) == (413, "body_too_large")
    assert "8 MiB" in refused.json()["error"]["message"]
    assert too_many.json()["error"]["param"] == "inputs"
