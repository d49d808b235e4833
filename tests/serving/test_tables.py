"""Models on columns through gateway and engine: labels and numbers for rows, and a clear no that names the column."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from modeling.core.table_features import TableFeatures, dump_features
from modeling.core.table_predictor import TableModel
from modeling.core.types import Tensors
from modeling.serving.wire import EngineRefusal
from tests.core.tiny_table import FEATURES, TARGET
from tests.serving.made import Artifacts, EngineProcess, head_parts
from tests.serving.speaking import client, in_thread, lifespan, make_version
from tests.serving.test_gateway import error, used

pytestmark = pytest.mark.real_weights
WIDTH = TableFeatures(FEATURES).width
ROWS = [
    {"age": 41, "home": "owns", "amount": "2,5"},
    {"age": None, "home": "a tent"},
    {},
]


def table_parts(answers: int) -> tuple[Tensors, dict[str, Any]]:
    """Random tensors of an additive model: so many classes, or a number for 1."""
    chance = np.random.default_rng(answers)
    tensors: Tensors = {
        "head.weight": chance.normal(0, 1, (answers, WIDTH)).astype(np.float32),
        "head.bias": chance.normal(0, 0.1, answers).astype(np.float32),
    }
    config: dict[str, Any] = {
        "task": "classification" if answers > 1 else "regression",
        "base": "tabular",
        "method": "additive",
        "labels": [f"class {index}" for index in range(answers)] if answers > 1 else [],
        "features": dump_features(FEATURES),
        "temperature": 1.5,
    }
    return tensors, config if answers > 1 else config | {"target": dump_features([TARGET])[0], "spread": 0.1}


def cells(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {feature.name: [row.get(feature.name) for row in rows] for feature in FEATURES}


def test_the_engine_answers_as_the_arithmetic_does(engine: EngineProcess, artifacts: Artifacts) -> None:
    tensors, config = table_parts(3)
    made = artifacts.seal(tensors, config, tenant="acme")
    found = engine.ask("classify", tenant="acme", base="tabular", artifact=made.body, rows=ROWS)
    direct = TableModel(tensors, config).probabilities(cells(ROWS), 3)
    for scores, row in zip(found["results"], direct, strict=True):
        assert dict(scores) == pytest.approx(dict(zip(config["labels"], row.tolist(), strict=True)), abs=1e-6)
        assert [score for _, score in scores] == sorted(row.tolist(), reverse=True)
    one = engine.ask("classify", tenant="acme", base="tabular", artifact=made.body, rows=ROWS[:1], top_k=1)
    assert [len(scores) for scores in one["results"]] == [1]


def test_models_of_other_kinds_and_tenants_do_not_open(engine: EngineProcess, artifacts: Artifacts) -> None:
    table = artifacts.seal(*table_parts(3), tenant="acme").body
    text = artifacts.seal(*head_parts(3, 0), tenant="acme").body
    broken = artifacts.seal(table_parts(3)[0], table_parts(2)[1], tenant="acme").body

    def code(tenant: str, base: str, artifact: dict[str, Any] | None) -> str:
        with pytest.raises(EngineRefusal) as refusal:
            engine.ask("classify", tenant=tenant, base=base, artifact=artifact, rows=ROWS, inputs=["a"])
        return refusal.value.code

    assert code("globex", "tabular", table) == "bad_artifact"
    assert code("acme", "tabular", text) == "bad_artifact"
    assert code("acme", "tabular", broken) == "bad_artifact"
    assert code("acme", "minilm-l6", table) == "bad_artifact"
    assert code("acme", "tabular", None) == "wrong_task"


@pytest.fixture
def key(people: Any, acme: Any, settings: Any, engine: EngineProcess) -> str:
    settings.ENGINE_SOCKET = engine.socket
    secret: str = people.key(acme, "predict")
    return secret


@pytest.mark.asyncio
async def test_classify_takes_objects(key: str, acme: Any) -> None:
    version = await in_thread(make_version, acme, *table_parts(3))
    async with lifespan(), client(key) as http:
        answer = (await http.post("/v1/classify", json={"model": version.name, "inputs": ROWS})).json()
        unsure = await http.post(
            "/v1/classify", json={"model": version.name, "inputs": ROWS[:1], "abstain_below": 1.0}
        )
    assert answer["object"] == "classification"
    assert answer["usage"] == {"predictions": 3, "prompt_tokens": 0, "total_tokens": 0}
    first = answer["results"][0]
    assert first["labels"][0] == {"label": first["label"], "confidence": first["confidence"]}
    assert unsure.json()["results"][0]["abstained"]
    assert await in_thread(used, acme) == {"predictions": 4}


@pytest.mark.asyncio
async def test_a_regression_answers_values_and_intervals(key: str, acme: Any) -> None:
    version = await in_thread(make_version, acme, *table_parts(1))
    async with lifespan(), client(key) as http:
        answer = (await http.post("/v1/classify", json={"model": version.name, "inputs": ROWS})).json()
    assert answer["object"] == "regression"
    for result in answer["results"]:
        assert 100 <= result["low"] <= result["value"] <= result["high"] <= 300
        assert result["high"] - result["low"] <= 0.2 * 200 + 1e-6


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("inputs", "named"),
    [
        ([{"age": "secret"}], "inputs[0].age must be a number"),
        ([{"age": 1}, {"age": True}], "inputs[1].age must be a number"),
        ([{"home": ["owns"]}], "inputs[0].home: must be one value"),
        ([{"agee": 1}], "age, home, amount"),
        (["a text"], "inputs[0]: must be an object"),
        ([{"age": 10**30}], "too large"),
        ([], "inputs"),
    ],
)
async def test_wrong_cells_are_refused_by_column(key: str, acme: Any, inputs: list[Any], named: str) -> None:
    version = await in_thread(make_version, acme, *table_parts(3))
    async with lifespan(), client(key) as http:
        refused = error(await http.post("/v1/classify", json={"model": version.name, "inputs": inputs}), 400)
    assert named in refused["message"]
    assert "secret" not in refused["message"]


@pytest.mark.asyncio
async def test_texts_and_columns_do_not_mix(key: str, acme: Any) -> None:
    text = await in_thread(make_version, acme, *head_parts(3, 1))
    async with lifespan(), client(key) as http:
        row = await http.post("/v1/classify", json={"model": text.name, "inputs": [{"age": 3}]})
        bare = await http.post("/v1/classify", json={"model": "tabular", "inputs": ROWS})
        chat = await http.post(
            "/v1/chat/completions", json={"model": "tabular", "messages": [{"role": "user", "content": "a"}]}
        )
    assert error(row, 400)["param"] == "inputs[0]"
    for refused in (bare, chat):
        assert error(refused, 400)["code"] == "wrong_task"
