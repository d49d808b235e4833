"""An endpoint's personal-data rule: off, note, mask and block, before the model sees a text; answers say how many."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import threading
from typing import Any

import numpy as np
import pytest

from billing import plans, queries
from billing.models import UsageEvent
from modeling.core.personal_policy import Policy, Screened, of_rule
from modeling.models import DefaultRules, Endpoint, ModelVersion
from modeling.serving import gateway_screen
from modeling.serving.gateway_metrics import METRICS
from modeling.serving.gateway_screen import CHUNK_CHARACTERS
from tenants.scope import scope
from tests.serving.made import EngineProcess, head_parts
from tests.serving.speaking import client, in_thread, lifespan, make_version

pytestmark = [pytest.mark.real_weights, pytest.mark.asyncio]
SECRET = "anna.canary@example.com"
CARD = "4111 1111 1111 1111"
TEXT, MASKED = f"Mail {SECRET} about card {CARD}.", "Mail [EMAIL] about card [CARD]."
FOUND = {"email": 1, "card": 1}


@pytest.fixture(autouse=True)
def _engine(settings: Any, engine: EngineProcess) -> None:
    settings.ENGINE_SOCKET = engine.socket


@pytest.fixture
def key(people: Any, acme: Any) -> str:
    secret: str = people.key(acme, "predict")
    return secret


@pytest.fixture
def classifier(acme: Any) -> ModelVersion:
    """A classifier with an endpoint for each rule, named like it."""
    version = make_version(acme, *head_parts(5, 1))
    with scope(acme):
        for rule in ("off", "note", "mask", "block"):
            Endpoint.objects.of(acme).create(name=rule, version=version, personal_data=rule)
    return version


def rule_for_own_names(tenant: Any, rule: str) -> None:
    with scope(tenant):
        DefaultRules.objects.of(tenant).create(personal_data=rule)


def billed(tenant: Any) -> int:
    with scope(tenant):
        return UsageEvent.objects.of(tenant).count()


async def test_each_rule_of_a_classifier(key: str, classifier: ModelVersion) -> None:
    async with lifespan(), client(key) as http:

        async def ask(model: str, *inputs: Any) -> Any:
            return await http.post("/v1/classify", json={"model": model, "inputs": list(inputs)})

        plain, masked_by_hand = await ask("off", TEXT), await ask("off", MASKED)
        noted, masked = await ask("note", TEXT), await ask("mask", "Nothing here.", {"text": TEXT})
    assert "personal_data" not in plain.json()
    assert "x-cloister-personal-data" not in plain.headers
    assert noted.json()["results"] == plain.json()["results"]
    assert noted.json()["personal_data"] == {"policy": "note", "found": FOUND}
    assert masked.json()["results"][1]["label"] == masked_by_hand.json()["results"][0]["label"]
    assert masked.json()["results"][1]["confidence"] == pytest.approx(
        masked_by_hand.json()["results"][0]["confidence"], abs=1e-4
    )
    assert masked.json()["results"][1]["confidence"] != pytest.approx(
        plain.json()["results"][0]["confidence"], abs=1e-4
    )
    assert masked.json()["personal_data"] == {"policy": "mask", "found": FOUND}
    assert masked.headers["x-cloister-personal-data"] == "mask; email=1; card=1"


async def test_a_blocked_request_says_where_and_of_which_kind_and_costs_nothing(
    key: str, acme: Any, classifier: ModelVersion, caplog: pytest.LogCaptureFixture
) -> None:
    before = METRICS.events["requests_blocked"]
    with caplog.at_level(logging.DEBUG):
        async with lifespan(), client(key) as http:
            ask = {"model": "block", "inputs": ["fine", TEXT, "fine", f"call {CARD}"]}
            refused = await http.post("/v1/classify", json=ask)
            allowed = await http.post("/v1/classify", json={"model": "block", "inputs": ["fine"]})
    assert refused.status_code == 400
    problem = refused.json()["error"]
    assert (problem["code"], problem["param"]) == ("personal_data", "inputs[1]")
    assert "inputs[1] (email: 1, card: 1), inputs[3] (card: 1)" in problem["message"]
    assert SECRET not in refused.text
    assert CARD not in refused.text
    assert not any(SECRET in record.getMessage() for record in caplog.records)
    assert allowed.json()["personal_data"] == {"policy": "block", "found": {}}
    assert await in_thread(billed, acme) == 1
    assert METRICS.events["requests_blocked"] == before + 1


async def test_embeddings_and_chat_by_their_own_name(key: str, acme: Any) -> None:
    story = [{"role": "system", "content": f"You know {SECRET}."}, {"role": "user", "content": TEXT}]
    by_hand = [{"role": "system", "content": "You know [EMAIL]."}, {"role": "user", "content": MASKED}]
    chat = {"model": "smollm2-135m", "max_tokens": 6, "temperature": 0}
    async with lifespan(), client(key) as http:
        ask = {"model": "minilm-l6", "input": MASKED}
        wanted = (await http.post("/v1/embeddings", json=ask)).json()
        said = (await http.post("/v1/chat/completions", json=chat | {"messages": by_hand})).json()
    await in_thread(rule_for_own_names, acme, "mask")
    async with lifespan(), client(key) as http:
        vector = (await http.post("/v1/embeddings", json={"model": "minilm-l6", "input": TEXT})).json()
        answer = (await http.post("/v1/chat/completions", json=chat | {"messages": story})).json()
        stream = await http.post("/v1/chat/completions", json=chat | {"messages": story, "stream": True})
    assert np.allclose(vector["data"][0]["embedding"], wanted["data"][0]["embedding"], atol=1e-4)
    assert vector["personal_data"] == {"policy": "mask", "found": FOUND}
    assert answer["usage"] == said["usage"]
    assert answer["choices"] == said["choices"]
    assert answer["personal_data"] == {"policy": "mask", "found": {"email": 2, "card": 1}}
    assert stream.headers["x-cloister-personal-data"] == "mask; email=2; card=1"


async def test_the_blocked_message_of_a_conversation_is_named(key: str, acme: Any) -> None:
    await in_thread(rule_for_own_names, acme, "block")
    messages = [{"role": "user", "content": "hello"}, {"role": "user", "content": TEXT}]
    async with lifespan(), client(key) as http:
        ask = {"model": "smollm2-135m", "messages": messages, "stream": True}
        refused = await http.post("/v1/chat/completions", json=ask)
        embedded = await http.post("/v1/embeddings", json={"model": "minilm-l6", "input": TEXT})
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "messages[1].content"
    assert embedded.json()["error"]["param"] == "input"


async def test_who_is_over_the_rate_is_not_looked_through(
    key: str, acme: Any, classifier: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking takes time of the process that answers everybody: the limits come first."""
    monkeypatch.setattr(queries, "FREE", dataclasses.replace(plans.FREE, requests_per_minute=2))
    await in_thread(rule_for_own_names, acme, "mask")
    asked = [
        ("/v1/classify", {"model": "mask", "inputs": [TEXT]}),
        ("/v1/embeddings", {"model": "minilm-l6", "input": TEXT}),
        ("/v1/chat/completions", {"model": "smollm2-135m", "messages": [{"role": "user", "content": TEXT}]}),
    ]
    async with lifespan(), client(key) as http:
        for _ in range(3):
            last = await http.post(asked[1][0], json=asked[1][1])
        assert last.status_code == 429
        before = METRICS.events["texts_screened"]
        answers = [await http.post(path, json=body) for path, body in asked]
    assert {one.status_code for one in answers} == {429}
    assert METRICS.events["texts_screened"] == before


async def test_long_texts_of_one_tenant_wait_behind_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on = threading.Event()
    order: list[str] = []

    screen = Policy.screen

    def held(policy: Policy, text: str) -> Screened:
        goes_on.wait(20)
        order.append(text.split()[0])
        return screen(policy, text)

    monkeypatch.setattr(Policy, "screen", held)

    async def look(tenant: str) -> gateway_screen.Screened:
        texts = [f"{tenant} " * 1_500]
        return await gateway_screen.under_rule(of_rule("note", {}), texts, lambda at: "input", tenant=tenant)

    asked = [asyncio.create_task(look("loud")) for _ in range(6)]
    await asyncio.sleep(0.05)
    asked.append(asyncio.create_task(look("quiet")))
    await asyncio.sleep(0.05)
    goes_on.set()
    await asyncio.gather(*asked)
    assert order.index("quiet") <= 1
    assert len(order) == 7


async def test_long_requests_are_looked_through_to_the_end(key: str, classifier: ModelVersion) -> None:
    filler = "word " * (CHUNK_CHARACTERS // 10)
    inputs = [f"{filler} {number} {SECRET if number == 6 else ''}" for number in range(7)]
    async with lifespan(), client(key) as http:
        answer = (await http.post("/v1/classify", json={"model": "note", "inputs": inputs})).json()
    assert answer["personal_data"] == {"policy": "note", "found": {"email": 1}}
    assert json.dumps(answer).count(SECRET) == 0
