"""What serving's tests are made of: the engine process, and artefacts of every kind, sealed as the vault seals them."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modeling.core import artifacts, bases
from modeling.core.chat_tokens import ChatTokens
from modeling.core.types import Tensors
from modeling.serving.client import ask_once
from modeling.serving.wire import EngineRefusal
from saas.lib.sealed import Context, SealWriter

ROOT = Path(__file__).resolve().parents[2]
MODELS = Path(os.environ.get("MODELS_DIR", ROOT / ".data" / "models"))
WIDTH = 384


class EngineProcess:
    """`python -m modeling.serving.engine` on a socket of its own."""

    def __init__(self, socket: Path, *, models: Path = MODELS, encoder: str = "torch", **given: str) -> None:
        self.socket = socket
        command = [
            sys.executable,
            "-m",
            "modeling.serving.engine",
            "--socket",
            str(socket),
            "--models",
            str(models),
        ]
        environment = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        environment |= {"ENCODER_ENGINE": encoder, **given}
        self.process = subprocess.Popen(command, env=environment, cwd=socket.parent)

    def ask(self, op: str, *, tenant: str = "", seconds: float = 30.0, **body: Any) -> dict[str, Any]:
        """One blocking request."""
        return ask_once(self.socket, op, tenant=tenant, seconds=seconds, **body)

    def classify(self, artifact: Made, *inputs: str, tenant: str = "", **more: Any) -> dict[str, Any]:
        """Probabilities of texts, as the artefact's own tenant unless another is named."""
        tenant = tenant or artifact.tenant
        return self.ask(
            "classify", tenant=tenant, base="minilm-l6", artifact=artifact.body, inputs=inputs, **more
        )

    def answers(self) -> bool:
        """Whether it listens by now."""
        try:
            return bool(self.ask("health"))
        except EngineRefusal:
            return False

    def wait_for(self, base: str, *, seconds: float = 60.0) -> None:
        """Return once a base is ready."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                if self.ask("health")["bases"][base] == "ready":
                    return
            except EngineRefusal:
                assert self.process.poll() is None, "the engine ended"
            time.sleep(0.05)
        raise AssertionError(f"{base} was not ready within {seconds} s")

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(10)


@dataclass(frozen=True)
class Made:
    """A sealed artefact: what the gateway would send, and the plain truth to compare with."""

    tenant: str
    body: dict[str, Any]
    tensors: Tensors
    config: dict[str, Any]


class Artifacts:
    """Makes artefacts with seeded weights."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def seal(self, tensors: Tensors, config: dict[str, Any], *, tenant: str) -> Made:
        """Dump and seal under a fresh key."""
        version = secrets.token_hex(8)
        key = os.urandom(32)
        file = self._folder / version
        with file.open("wb") as sink:
            writer = SealWriter(sink, key=key, context=Context(tenant, version, 1))
            writer.write(artifacts.dump(tensors, config))
            writer.close()
        body = {"version": version, "path": str(file), "key": key, "context": [tenant, version, 1]}
        return Made(tenant, body, tensors, config)

    def head(self, tenant: str = "acme", *, classes: int = 5, seed: int = 0) -> Made:
        """A classifier on the frozen base."""
        return self.seal(*head_parts(classes, seed), tenant=tenant)

    def lora(
        self, tenant: str = "acme", *, rank: int = 8, seed: int = 0, modules: tuple[str, ...] = ()
    ) -> Made:
        """A classifier with LoRA adapters on query and value of every layer, or on the named modules."""
        tensors, config = head_parts(5, seed)
        chance = np.random.default_rng(seed + 1000)
        attention = [
            f"encoder.layer.{n}.attention.self.{part}" for n in range(6) for part in ("query", "value")
        ]
        for name in modules or attention:
            tensors[f"lora.{name}.A"] = chance.normal(0, 0.1, (rank, WIDTH)).astype(np.float32)
            tensors[f"lora.{name}.B"] = chance.normal(0, 0.1, (WIDTH, rank)).astype(np.float32)
        return self.seal(tensors, config | {"method": "lora", "rank": rank, "alpha": 2 * rank}, tenant=tenant)

    def full(self, tenant: str = "acme", *, seed: int = 0) -> Made:
        """A classifier with layers of its own: some of the first and the last layer's parameters, changed a little."""
        tensors, config = head_parts(5, seed)
        chance = np.random.default_rng(seed + 2000)
        names = {
            "embeddings.LayerNorm.weight": (WIDTH,),
            "encoder.layer.0.attention.self.key.weight": (WIDTH, WIDTH),
            "encoder.layer.0.attention.self.value.bias": (WIDTH,),
            "encoder.layer.5.attention.self.query.weight": (WIDTH, WIDTH),
            "encoder.layer.5.intermediate.dense.weight": (4 * WIDTH, WIDTH),
            "encoder.layer.5.output.LayerNorm.bias": (WIDTH,),
        }
        for name, shape in names.items():
            tensors[f"full.{name}"] = chance.normal(0, 0.05, shape).astype(np.float32)
        return self.seal(tensors, config | {"method": "full"}, tenant=tenant)

    def chat(self, tenant: str = "acme", *, seed: int = 0, scale: float = 0.05, width: int = 576) -> Made:
        """A final-hidden adapter for the chat base."""
        chance = np.random.default_rng(seed)
        tensors: Tensors = {
            "adapter.A": chance.normal(0, scale, (8, width)).astype(np.float32),
            "adapter.B": chance.normal(0, scale, (width, 8)).astype(np.float32),
            "adapter.bias": chance.normal(0, scale, width).astype(np.float32),
        }
        config = {"task": "chat", "base": "smollm2-135m", "method": "final_hidden"}
        return self.seal(tensors, config, tenant=tenant)

    def chat_layers(self, tenant: str = "acme", *, seed: int = 0, scale: float = 0.05) -> Made:
        """Adapters in the top layers of the chat base, from the answer's opening on."""
        chance = np.random.default_rng(seed)
        tensors: Tensors = {}
        for layer in range(26, 30):
            for part, wide in (("self_attn.o_proj", 576), ("mlp.down_proj", 1536)):
                name = f"lora.model.layers.{layer}.{part}"
                tensors[f"{name}.A"] = chance.normal(0, scale, (4, wide)).astype(np.float32)
                tensors[f"{name}.B"] = chance.normal(0, scale, (576, 4)).astype(np.float32)
        opening = ChatTokens(bases.path(MODELS, "smollm2-135m")).opening()
        config = {"task": "chat", "base": "smollm2-135m", "method": "top_layers", "rank": 4, "alpha": 4.0}
        return self.seal(tensors, config | {"invocation": opening}, tenant=tenant)

    def items(self, tenant: str = "acme", *, count: int = 50, seed: int = 0) -> Made:
        """A recommender over items "item-0"…"""
        return self.seal(*item_parts(count, seed), tenant=tenant)


def head_parts(classes: int, seed: int) -> tuple[Tensors, dict[str, Any]]:
    """Tensors and config of a classifier."""
    chance = np.random.default_rng(seed)
    tensors: Tensors = {
        "head.weight": chance.normal(0, 3, (classes, WIDTH)).astype(np.float32),
        "head.bias": chance.normal(0, 1, classes).astype(np.float32),
    }
    config = {"task": "classification", "base": "minilm-l6", "method": "head", "temperature": 1.3}
    return tensors, config | {"labels": [f"label-{seed}-{number}" for number in range(classes)]}


def item_parts(count: int, seed: int) -> tuple[Tensors, dict[str, Any]]:
    """Tensors and config of a recommender."""
    chance = np.random.default_rng(seed)
    tensors: Tensors = {
        "items.B": chance.normal(size=(count, 16)).astype(np.float32),
        "items.features": chance.normal(size=(count, 16)).astype(np.float32),
        "items.log_p": chance.normal(size=count).astype(np.float32),
        "direction": chance.normal(size=16).astype(np.float32),
    }
    config = {"task": "recommendation", "base": "minilm-l6", "method": "ssr"}
    return tensors, config | {"items": [f"item-{number}" for number in range(count)]}
