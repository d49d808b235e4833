"""The engine process on its fast path: torch's answers for every kind of version, and what health says."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from modeling.serving.wire import EngineRefusal
from tests.serving.made import Artifacts, EngineProcess
from tests.serving.test_engine_classify import TEXTS, in_order

pytestmark = pytest.mark.real_weights
CLOSE = 2e-2  # of a probability, in bfloat16


def settled(process: EngineProcess, seconds: float = 60.0) -> str:
    """The encoder's engine once it has been chosen; it is torch until then."""
    process.wait_for("minilm-l6")
    until = time.monotonic() + seconds
    while (name := process.ask("health")["encoder"]) == "torch" and time.monotonic() < until:
        time.sleep(0.1)
    return str(name)


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    process = EngineProcess(tmp_path_factory.mktemp("fast") / "engine.sock", encoder="auto")
    try:
        yield process
    finally:
        process.stop()


def test_it_works(fast: EngineProcess, engine: EngineProcess, artifacts: Artifacts) -> None:
    assert settled(fast) in ("openvino-bf16", "openvino-f32", "onnxruntime")
    assert engine.ask("health")["encoder"] == "torch"
    made = [artifacts.head(classes=7), artifacts.lora(rank=8, seed=1), artifacts.lora(rank=16, seed=2)]
    made += [artifacts.full(seed=3)]
    for one in made:
        found = in_order(one, fast.classify(one, *TEXTS, top_k=99)["results"])
        expected = in_order(one, engine.classify(one, *TEXTS, top_k=99)["results"])
        assert np.abs(found - expected).max() < CLOSE
        sure = np.sort(expected, axis=1)[:, -1] - np.sort(expected, axis=1)[:, -2] > 2 * CLOSE
        assert sure.any()
        assert (found.argmax(1) == expected.argmax(1))[sure].all()


def test_embeddings(fast: EngineProcess, engine: EngineProcess) -> None:
    settled(fast)
    found, expected = (
        np.array(
            [np.frombuffer(v, "<f4") for v in one.ask("embed", base="minilm-l6", inputs=TEXTS)["vectors"]]
        )
        for one in (fast, engine)
    )
    assert (found * expected).sum(axis=1).min() > 0.999


def test_a_warm_version_is_in_its_slots(fast: EngineProcess, artifacts: Artifacts) -> None:
    settled(fast)
    made = artifacts.lora("warm", seed=5)
    before = fast.ask("stats")["bases"]["minilm-l6"]["slots"]
    fast.ask("warm", tenant="warm", base="minilm-l6", artifact=made.body)
    warmed = fast.ask("stats")["bases"]["minilm-l6"]["slots"]
    assert warmed["misses"] == before["misses"] + 2  # its head and its adapters
    fast.classify(made, "hello")
    after = fast.ask("stats")["bases"]["minilm-l6"]["slots"]
    assert (after["misses"], after["hits"]) == (warmed["misses"], warmed["hits"] + 2)


@pytest.mark.parametrize("swap", ["path", "key", "context", "tenant"])
def test_another_tenants_adapters_are_refused(fast: EngineProcess, artifacts: Artifacts, swap: str) -> None:
    settled(fast)
    mine, theirs = artifacts.lora("acme", seed=6), artifacts.lora("globex", seed=7)
    fast.classify(mine, "hello")
    fast.classify(theirs, "hello")  # both lie in slots
    tenant = "acme"
    body = {**mine.body}
    if swap == "tenant":
        tenant, body = "acme", {**theirs.body}
    else:
        body[swap] = theirs.body[swap]
    with pytest.raises(EngineRefusal) as refusal:
        fast.ask("classify", tenant=tenant, base="minilm-l6", artifact=body, inputs=["hello"])
    assert refusal.value.code == "bad_artifact"


def test_a_purged_version_leaves_its_slots(fast: EngineProcess, artifacts: Artifacts) -> None:
    settled(fast)
    made = artifacts.lora("leaver", seed=8)
    fast.classify(made, "hello")
    assert fast.ask("purge", tenant="leaver")["purged"] == 3  # the artefact, its head and its adapters
    assert fast.ask("purge", tenant="leaver")["purged"] == 0


def test_an_unknown_engine_is_refused_with_the_names(tmp_path: Path) -> None:
    process = EngineProcess(tmp_path / "engine.sock", encoder="abacus")
    try:
        until = time.monotonic() + 30
        while time.monotonic() < until and not process.answers():
            time.sleep(0.05)
        with pytest.raises(EngineRefusal, match="openvino-bf16"):
            process.ask("embed", base="minilm-l6", inputs=["hello"])
        assert process.ask("health")["bases"]["minilm-l6"] == "failed"
    finally:
        process.stop()
