"""The fastest engine that agrees with torch is chosen; what crashes or disagrees never is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path

import numpy as np
import pytest
import torch

from modeling.serving.bert import Bert
from modeling.serving.encoder_choice import NAMES, agrees, choose
from modeling.serving.encoder_engines import GraphEncoder
from modeling.serving.encoder_sessions import Backend
from tests.core.tiny_text import make_base
from tests.serving.encoders import SIDE, texts, worst
from tests.serving.made import ROOT


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Bert:
    return Bert(make_base(tmp_path_factory.mktemp("models")))


@pytest.mark.parametrize("name", NAMES)
def test_a_name_forces_its_engine(model: Bert, name: str) -> None:
    chosen = choose(model, SIDE, wanted=name)
    assert chosen.name in (name, "openvino-f32", "torch")  # bfloat16 only where the processor has it
    rows = texts(model, 9)
    assert worst(chosen.embed(rows), model.embed(rows).numpy()) < 2e-2


def test_it_works(model: Bert) -> None:
    tried: list[str] = []

    def make(base: Bert, backend: Backend, executor: Executor) -> GraphEncoder:
        tried.append(backend.name)
        return GraphEncoder(base, backend, executor)

    chosen = choose(model, SIDE, make=make)
    assert chosen.name in {"torch", *tried}
    assert tried[-1] in ("openvino-f32", "onnxruntime")


def crashing(base: Bert, backend: Backend, executor: Executor) -> GraphEncoder:
    raise RuntimeError("this processor has no such instruction")


def broken_library(base: Bert, backend: Backend, executor: Executor) -> GraphEncoder:
    backend.session(b"this is no graph")
    raise AssertionError("it compiled")


def wrong(base: Bert, backend: Backend, executor: Executor) -> GraphEncoder:
    weight = torch.randn(base.width, base.inner, generator=torch.Generator().manual_seed(0))
    return GraphEncoder(base.changed({"encoder.layer.1.output.dense.weight": weight}), backend, executor)


class ForgetsAdapters(GraphEncoder):
    """Right about rows without adapters, blind to adapters."""

    def embed(self, rows, mixes=()):  # type: ignore[no-untyped-def]
        return super().embed(rows)


@pytest.mark.parametrize("make", [crashing, broken_library, wrong, ForgetsAdapters])
@pytest.mark.parametrize("wanted", ["auto", "openvino-f32", "onnxruntime"])
def test_what_crashes_or_disagrees_is_never_chosen(
    model: Bert, make: Callable[[Bert, Backend, Executor], GraphEncoder], wanted: str
) -> None:
    assert choose(model, SIDE, wanted=wanted, make=make).name == "torch"


def test_agreement() -> None:
    expected = np.eye(3, 8, dtype=np.float32)
    near = expected + np.float32(5e-3)
    assert agrees(expected + np.float32(5e-5), expected, half=False)
    assert not agrees(near, expected, half=False)
    assert agrees(near, expected, half=True)
    assert not agrees(expected[::-1], expected, half=True)
    assert not agrees(expected[:2], expected, half=True)
    assert not agrees(np.full_like(expected, np.nan), expected, half=True)


def test_nothing_that_reports_usage_is_loaded(tmp_path: Path) -> None:
    folder = make_base(tmp_path)
    script = (
        "import socket, sys\n"
        "def refuse(*_): raise SystemExit('it opened a connection')\n"
        "socket.socket.connect = refuse\n"
        "from pathlib import Path\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from modeling.serving.bert import Bert\n"
        "from modeling.serving.encoder_choice import choose\n"
        f"choose(Bert(Path({str(folder)!r})), ThreadPoolExecutor(1))\n"
        "assert 'openvino' in sys.modules\n"
        "print(sorted(name for name in sys.modules if name.startswith('openvino_telemetry.')))\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
