"""The hot routes answer through gateway, socket and engine, count what they did, and refuse clearly."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from billing.models import UsageEvent
from modeling.core.recommend_scores import ItemModel, recommend_scores
from modeling.models.endpoints import Endpoint
from modeling.serving.targets import serving_target
from tenants import actions
from tenants.audit import SYSTEM
from tenants.models import ApiKey
from tenants.scope import scope
from tests.serving.made import EngineProcess, head_parts, item_parts
from tests.serving.speaking import client, in_thread, leave_after, lifespan, make_version

pytestmark = [pytest.mark.real_weights, pytest.mark.asyncio]
STORY = [{"role": "user", "content": "Tell me a long story about a lighthouse."}]


@pytest.fixture(autouse=True)
def _engine(settings: Any, engine: EngineProcess) -> None:
    settings.ENGINE_SOCKET = engine.socket


@pytest.fixture
def key(people: Any, acme: Any) -> str:
    secret: str = people.key(acme, "predict")
    return secret


@pytest.fixture
def classifier(acme: Any) -> Any:
    return make_version(acme, *head_parts(5, 1))


def used(tenant: Any) -> dict[str, int]:
    """Metered quantities by kind."""
    with scope(tenant):
        found: dict[str, int] = {}
        for kind, quantity in UsageEvent.objects.of(tenant).values_list("kind", "quantity"):
            found[kind] = found.get(kind, 0) + int(quantity)
        return found


def error(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    body: dict[str, Any] = response.json()["error"]
    assert set(body) == {"message", "type", "param", "code"}
    assert response.headers["x-request-id"].startswith("req_")
    return body


async def test_classify(key: str, acme: Any, classifier: Any) -> None:
    async with lifespan(), client(key) as http:
        body = {"model": classifier.name, "inputs": ["hello", {"text": "a fracture"}], "top_k": 2}
        response = await http.post("/v1/classify", json=body)
        sure = await http.post("/v1/classify", json=body | {"abstain_below": 1.0})
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["model"] == classifier.name
    assert answer["id"].startswith("clf-")
    assert answer["usage"]["predictions"] == 2
    first = answer["results"][0]
    assert first["labels"][0] == {"label": first["label"], "confidence": first["confidence"]}
    assert len(first["labels"]) == 2
    assert not first["abstained"]
    assert [(one["label"], one["abstained"]) for one in sure.json()["results"]] == [(None, True)] * 2
    assert response.headers["x-ratelimit-limit-requests"] == "600"
    assert int(response.headers["x-ratelimit-remaining-requests"]) < 600
    assert int(response.headers["openai-processing-ms"]) >= 0
    assert await in_thread(used, acme) == {"predictions": 4}


async def test_an_endpoint_answers_with_its_version(key: str, acme: Any, classifier: Any) -> None:
    def point() -> None:
        with scope(acme):
            Endpoint.objects.of(acme).create(name="prod", version=classifier)

    await in_thread(point)
    async with lifespan(), client(key) as http:
        response = await http.post("/v1/classify", json={"model": "prod", "inputs": ["hello"]})
    assert response.json()["model"] == classifier.name


async def test_recommend(key: str, acme: Any) -> None:
    tensors, config = item_parts(60, 3)
    version = await in_thread(make_version, acme, tensors, config)
    model = ItemModel(tensors, config)
    ask = {
        "model": version.name,
        "user": "u-1",
        "history": ["item-3", "item-9", "nowhere"],
        "k": 5,
        "exclude": ["item-1"],
    }
    async with lifespan(), client(key) as http:
        answer = (await http.post("/v1/recommend", json=ask)).json()
        similar = (
            await http.post("/v1/recommend", json={"model": version.name, "similar_to": "item-4"})
        ).json()
        stranger = (
            await http.post("/v1/recommend", json={"model": version.name, "history": ["nowhere"], "k": 4})
        ).json()
        unknown = await http.post("/v1/recommend", json={"model": version.name, "similar_to": "x"})
    direct = recommend_scores(model, history=ask["history"], exclude=["item-1"], k=5)
    assert [(row["item"], pytest.approx(row["score"])) for row in answer["items"]] == direct
    assert len(similar["items"]) == 10
    assert (answer["basis"], similar["basis"]) == ("history", "similar")
    assert stranger["basis"] == "popular"
    assert [row["item"] for row in stranger["items"]] == [item for item, _ in recommend_scores(model, k=4)]
    assert error(unknown, 400)["param"] == "similar_to"
    assert await in_thread(used, acme) == {"predictions": 3}


async def test_embeddings(key: str, acme: Any) -> None:
    async with lifespan(), client(key) as http:
        ask = {"model": "minilm-l6", "input": ["hello", "world"]}
        floats = (await http.post("/v1/embeddings", json=ask)).json()
        packed = (await http.post("/v1/embeddings", json=ask | {"encoding_format": "base64"})).json()
    vectors = np.array([row["embedding"] for row in floats["data"]], dtype=np.float32)
    decoded = np.array([np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in packed["data"]])
    assert vectors.shape == (2, 384)
    assert np.abs(vectors - decoded).max() < 1e-6
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert await in_thread(used, acme) == {"tokens": 2 * floats["usage"]["total_tokens"]}


async def test_chat(key: str, acme: Any) -> None:
    ask = {"model": "smollm2-135m", "messages": STORY, "max_tokens": 8, "temperature": 0}
    async with lifespan(), client(key) as http:
        whole = (await http.post("/v1/chat/completions", json=ask)).json()
        stream = await http.post(
            "/v1/chat/completions", json=ask | {"stream": True, "stream_options": {"include_usage": True}}
        )
    assert whole["object"] == "chat.completion"
    assert whole["choices"][0]["finish_reason"] == "length"
    assert whole["usage"] == {"prompt_tokens": 39, "completion_tokens": 8, "total_tokens": 47}
    assert stream.headers["content-type"].startswith("text/event-stream")
    events = [line.removeprefix("data: ") for line in stream.text.split("\n\n") if line]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert chunks[-1]["usage"] == whole["usage"]
    assert chunks[-1]["choices"] == []
    text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks[:-1])
    assert text == whole["choices"][0]["message"]["content"]
    assert chunks[-2]["choices"][0]["finish_reason"] == "length"
    assert await in_thread(used, acme) == {"tokens": 94}


async def test_a_client_that_leaves_stops_the_engine_and_pays_for_what_was_sent(
    key: str, acme: Any, engine: EngineProcess
) -> None:
    ask = {"model": "smollm2-135m", "messages": STORY, "max_tokens": 500, "stream": True}
    async with lifespan():
        sent = await leave_after(key, "/v1/chat/completions", ask, events=6)
    pieces = (
        b"".join(message.get("body", b"") for message in sent).count(b'"content":') - 1
    )  # the role's chunk
    assert pieces == 5
    paid = (await in_thread(used, acme))["tokens"] - 39
    assert pieces <= paid <= pieces + 2  # a piece may hold two tokens
    for _ in range(20):  # the slot is cleared with the next step
        if (await in_thread(engine.ask, "health"))["counts"]["smollm2-135m"]["active"] == 0:
            break
        await asyncio.sleep(0.05)
    else:
        raise AssertionError("the engine still generates")


async def test_a_client_that_leaves_before_the_answer_pays_nothing(key: str, acme: Any) -> None:
    ask = {"model": "smollm2-135m", "messages": STORY, "max_tokens": 500}
    async with lifespan():
        assert await leave_after(key, "/v1/chat/completions", ask, events=0) == []
    assert await in_thread(used, acme) == {}


async def test_a_strangers_model_is_as_unknown_as_none(
    people: Any, key: str, classifier: Any, globex: Any
) -> None:
    other = await in_thread(people.key, globex, "predict")
    absent = classifier.name[:-8] + "zzzzzzzz"
    async with lifespan(), client(other) as http:
        theirs = await http.post("/v1/classify", json={"model": classifier.name, "inputs": ["x"]})
        nobodys = await http.post("/v1/classify", json={"model": absent, "inputs": ["x"]})
    assert error(theirs, 404) == error(nobodys, 404)
    assert error(theirs, 404)["code"] == "model_not_found"
    async with lifespan(), client(key) as http:  # the control
        assert (
            await http.post("/v1/classify", json={"model": classifier.name, "inputs": ["x"]})
        ).status_code == 200


async def test_swapped_ciphertext_is_refused(
    people: Any, key: str, acme: Any, globex: Any, classifier: Any
) -> None:
    theirs = await in_thread(make_version, globex, *head_parts(5, 2))
    mine = await in_thread(serving_target, acme.pk, classifier.name)
    other = await in_thread(serving_target, globex.pk, theirs.name)

    def swap() -> None:
        Path(mine.path).write_bytes(Path(other.path).read_bytes())

    await in_thread(swap)
    async with lifespan(), client(key) as http:
        response = await http.post("/v1/classify", json={"model": classifier.name, "inputs": ["x"]})
    assert error(response, 503)["code"] == "model_unavailable"
    assert await in_thread(used, acme) == {}


async def test_keys(people: Any, acme: Any) -> None:
    ask = {"model": "minilm-l6", "input": "hello"}
    narrow = await in_thread(people.key, acme, "files")
    for raw, status in (("", 401), ("nonsense", 401), (narrow, 403)):
        async with lifespan(), client(raw) as http:
            error(await http.post("/v1/embeddings", json=ask), status)


async def test_a_revoked_key_is_refused_within_five_seconds(people: Any, acme: Any) -> None:
    secret = await in_thread(people.key, acme, "predict")

    def revoke() -> None:
        with scope(acme):
            actions.revoke_key(ApiKey.objects.of(acme).select_related("tenant").get(), actor=SYSTEM)

    ask = {"model": "minilm-l6", "input": "hello"}
    async with lifespan(), client(secret) as http:
        for _ in range(3):
            assert (await http.post("/v1/embeddings", json=ask)).status_code == 200
        await in_thread(revoke)
        statuses = [(await http.post("/v1/embeddings", json=ask)).status_code for _ in range(20)]
    assert statuses[-1] == 401
    assert statuses.count(200) < 5  # pushed, not waited for


async def test_a_suspended_tenant_is_refused(people: Any, acme: Any, key: str) -> None:
    ask = {"model": "minilm-l6", "input": "hello"}
    async with lifespan(), client(key) as http:
        assert (await http.post("/v1/embeddings", json=ask)).status_code == 200
        await in_thread(actions.suspend_tenant, acme, reason="test", actor=SYSTEM)
        statuses = [(await http.post("/v1/embeddings", json=ask)).status_code for _ in range(20)]
    assert statuses[-1] == 403
