"""A model of several labels a row: each label its own confidence, the assigned ones, and the suggested threshold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from modeling.core.predictor import classify_probabilities
from tests.serving.made import Artifacts, EngineProcess, head_parts
from tests.serving.speaking import client, lifespan, make_version
from tests.serving.test_engine_classify import TEXTS, features, in_order

pytestmark = pytest.mark.real_weights
SUGGESTED = 0.62


def parts() -> tuple[Any, dict[str, Any]]:
    tensors, config = head_parts(6, 4)
    return tensors, config | {"multi_label": True, "abstain_below": SUGGESTED}


def test_confidences_are_each_labels_own(engine: EngineProcess, artifacts: Artifacts) -> None:
    tensors, config = parts()
    made = artifacts.seal(tensors, config, tenant="acme")
    answer = engine.classify(made, *TEXTS)
    direct = classify_probabilities(tensors, config, features(*TEXTS))
    assert np.abs(in_order(made, answer["results"]) - direct).max() < 1e-4
    assert abs(direct.sum(axis=1) - 1).max() > 0.1  # no softmax
    for row, assigned in zip(direct, answer["assigned"], strict=True):
        assert assigned == [config["labels"][index] for index in np.argsort(-row) if row[index] >= 0.5]
    assert answer["abstain_below"] == SUGGESTED


def test_assigned_labels_are_told_beyond_top_k(engine: EngineProcess, artifacts: Artifacts) -> None:
    tensors, config = parts()
    tensors["head.bias"] = np.full(6, 50.0, dtype=np.float32)
    answer = engine.classify(artifacts.seal(tensors, config, tenant="acme"), "a", top_k=1)
    assert len(answer["results"][0]) == 1
    assert len(answer["assigned"][0]) == 6


def test_one_class_a_row_has_no_assigned_labels(engine: EngineProcess, artifacts: Artifacts) -> None:
    answer = engine.classify(artifacts.head(classes=3), "a")
    assert "assigned" not in answer
    assert answer["abstain_below"] is None


@pytest.fixture
def key(people: Any, acme: Any) -> str:
    secret: str = people.key(acme, "predict")
    return secret


@pytest.fixture
def model(acme: Any) -> Any:
    """Its best label has a confidence of .52, below the suggestion."""
    tensors, config = parts()
    tensors["head.weight"] *= 0.0
    tensors["head.bias"] = np.array([-1, -1, 0.1, -1, -1, -1], dtype=np.float32)
    return make_version(acme, tensors, config)


@pytest.mark.asyncio
async def test_the_api_offers_the_threshold_and_does_not_force_it(
    settings: Any, engine: EngineProcess, key: str, model: Any
) -> None:
    settings.ENGINE_SOCKET = engine.socket
    best = parts()[1]["labels"][2]
    async with lifespan(), client(key) as http:
        body = {"model": model.name, "inputs": ["hello"]}
        plain = (await http.post("/v1/classify", json=body)).json()
        asked = plain["suggested_abstain_below"]
        strict = (await http.post("/v1/classify", json=body | {"abstain_below": asked})).json()
    assert asked == SUGGESTED
    assert plain["results"][0]["label"] == best
    assert best in plain["results"][0]["assigned"]
    assert strict["results"][0] | {"labels": []} == {
        "label": None,
        "confidence": plain["results"][0]["confidence"],
        "labels": [],
        "abstained": True,
        "assigned": [],
    }


def test_the_playground_says_what_holds_and_when_to_abstain(
    settings: Any, engine: EngineProcess, alice: Any, acme: Any, model: Any
) -> None:
    settings.ENGINE_SOCKET = engine.socket
    page = alice.post(f"/t/{acme.slug}/playground/", {"model": model.name, "text": "hello"}).content.decode()
    assert f"Labels that hold: {parts()[1]['labels'][2]}." in page
    assert "Less sure than 62 %" in page
