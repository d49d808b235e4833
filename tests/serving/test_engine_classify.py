"""The engine's classifications are those of the plain computation, whoever shares the batch."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from modeling.core import bases
from modeling.core.encoder import Encoder
from modeling.core.predictor import classify_probabilities
from modeling.core.text_model import put_full
from modeling.core.types import Array
from modeling.serving.client import EngineClient
from modeling.serving.wire import EngineRefusal
from tests.serving.made import MODELS, Artifacts, EngineProcess, Made

pytestmark = pytest.mark.real_weights
TEXTS = (
    "Pneumonia due to other Gram-negative bacteria",
    "Fracture of lower end of radius",
    "my card was charged twice",
    "Type 2 diabetes mellitus with diabetic chronic kidney disease, stage three, without long-term use of insulin",
    "hello",
)


@cache
def _encoder() -> Encoder:
    encoder = Encoder(bases.path(MODELS, "minilm-l6"))
    encoder.dtype = torch.float32
    return encoder


def features(*texts: str) -> Array:
    return _encoder().embed_all(texts)


def in_order(made: Made, results: list[list[list[Any]]]) -> Array:
    """Probabilities [n, K] in the order of the artefact's labels."""
    return np.array([[dict(map(tuple, row))[label] for label in made.config["labels"]] for row in results])


def test_it_works(engine: EngineProcess, artifacts: Artifacts) -> None:
    made = artifacts.head(classes=7)
    answer = engine.classify(made, *TEXTS)
    direct = classify_probabilities(made.tensors, made.config, features(*TEXTS))
    assert np.abs(in_order(made, answer["results"]) - direct).max() < 1e-4
    assert [row[0][0] for row in answer["results"]] == [made.config["labels"][i] for i in direct.argmax(1)]
    assert answer["tokens"] == sum(map(len, _encoder().tokens(TEXTS)))


def test_top_k(engine: EngineProcess, artifacts: Artifacts) -> None:
    made = artifacts.head(classes=40)
    assert [len(row) for row in engine.classify(made, "a", top_k=3)["results"]] == [3]
    assert [len(row) for row in engine.classify(made, "a", top_k=99)["results"]] == [40]


def test_lora_equals_the_merged_weights(engine: EngineProcess, artifacts: Artifacts) -> None:
    made = artifacts.lora(rank=8, seed=3)
    model = _encoder().model
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        for name, down in made.tensors.items():
            if name.endswith(".A"):
                module = model.get_submodule(name.removeprefix("lora.").removesuffix(".A"))
                up = torch.from_numpy(made.tensors[name.removesuffix("A") + "B"])
                module.weight.data += (up @ torch.from_numpy(down)) * (
                    made.config["alpha"] / made.config["rank"]
                )
        direct = classify_probabilities(made.tensors, made.config, features(*TEXTS))
    finally:
        model.load_state_dict(kept)
    plain = classify_probabilities(made.tensors, made.config, features(*TEXTS))
    assert np.abs(direct - plain).max() > 1e-2  # the control: the adapters matter
    assert np.abs(in_order(made, engine.classify(made, *TEXTS)["results"]) - direct).max() < 1e-4


def test_full_equals_the_encoder_with_those_layers(engine: EngineProcess, artifacts: Artifacts) -> None:
    made = artifacts.full(seed=4)
    model = _encoder().model
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        put_full(model, made.tensors)
        direct = classify_probabilities(made.tensors, made.config, features(*TEXTS))
    finally:
        model.load_state_dict(kept)
    plain = classify_probabilities(made.tensors, made.config, features(*TEXTS))
    assert np.abs(direct - plain).max() > 1e-2  # the control: the layers matter
    assert np.abs(in_order(made, engine.classify(made, *TEXTS)["results"]) - direct).max() < 1e-4
    other = artifacts.head("full-other", classes=5)  # and the base's layers are as they were
    theirs = classify_probabilities(other.tensors, other.config, features(*TEXTS))
    assert np.abs(in_order(other, engine.classify(other, *TEXTS)["results"]) - theirs).max() < 1e-4


@pytest.mark.parametrize(
    ("name", "shape"),
    [("encoder.layer.9.output.dense.bias", (384,)), ("encoder.layer.0.output.dense.bias", (383,))],
)
def test_layers_that_do_not_fit_are_refused(
    engine: EngineProcess, artifacts: Artifacts, name: str, shape: tuple[int, ...]
) -> None:
    made = artifacts.full()
    tensors = {**made.tensors, f"full.{name}": np.zeros(shape, dtype=np.float32)}
    broken = artifacts.seal(tensors, made.config, tenant="acme")
    with pytest.raises(EngineRefusal) as refusal:
        engine.classify(broken, "hello")
    assert refusal.value.code == "bad_artifact"


@pytest.mark.asyncio
async def test_a_row_in_a_mixed_batch_equals_the_row_alone(
    engine: EngineProcess, artifacts: Artifacts
) -> None:
    made = [artifacts.head(f"h{n}", seed=n, classes=3 + 17 * n) for n in range(4)]
    made += [artifacts.lora(f"l{n}", seed=n, rank=(4, 8, 16, 64)[n]) for n in range(4)]
    made += [artifacts.full(f"f{n}", seed=n) for n in range(2)]
    alone = [engine.classify(one, text, top_k=99)["results"] for one in made for text in TEXTS]
    client = EngineClient(engine.socket)
    asks = [
        client.ask(
            "classify", tenant=o.tenant, seconds=60, base="minilm-l6", artifact=o.body, inputs=[t], top_k=99
        )
        for o in made
        for t in TEXTS
    ]
    before = engine.ask("health")["counts"]["minilm-l6"]["batches"]
    together = [answer["results"] for answer in await asyncio.gather(*asks)]
    batches = engine.ask("health")["counts"]["minilm-l6"]["batches"] - before
    await client.close()
    assert batches < len(asks) / 2  # they did share batches
    pairs = [
        (one, a, t) for (one, a), t in zip([(o, None) for o in made for _ in TEXTS], together, strict=True)
    ]
    worst = max(
        np.abs(in_order(one, a) - in_order(one, t)).max() for (one, _, t), a in zip(pairs, alone, strict=True)
    )
    assert worst < 1e-4


def test_embeddings_are_the_encoders(engine: EngineProcess) -> None:
    answer = engine.ask("embed", tenant="acme", base="minilm-l6", inputs=TEXTS)
    vectors = np.array([np.frombuffer(vector, "<f4") for vector in answer["vectors"]])
    assert vectors.shape == (len(TEXTS), answer["width"])
    assert np.abs(vectors - features(*TEXTS)).max() < 1e-4


def test_two_hundred_tenants_share_the_slots(engine: EngineProcess, artifacts: Artifacts) -> None:
    made = [artifacts.head(f"many{n}", seed=n, classes=2) for n in range(150)]
    vector = features("hello")
    for one in [*made, *made[:20]]:
        direct = classify_probabilities(one.tensors, one.config, vector)
        assert np.abs(in_order(one, engine.classify(one, "hello")["results"]) - direct).max() < 1e-4
    assert engine.ask("health")["counts"]["minilm-l6"]["evictions"] > 20
