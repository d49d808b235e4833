"""A tiny encoder, every engine that can run it, and banks of seeded adapters for it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from modeling.serving.bank import Mix, SlotBank
from modeling.serving.bert import Bert
from modeling.serving.encoder_choice import NAMES
from modeling.serving.encoder_engines import EncoderEngine, GraphEncoder, TorchEncoder
from modeling.serving.encoder_sessions import Backend, Floats, OnnxRuntime, OpenVino

SIDE = ThreadPoolExecutor(1, "test")
QUERY_VALUE = ("attention.self.query", "attention.self.value")
ALL = (*QUERY_VALUE, "attention.self.key", "attention.output.dense", "intermediate.dense", "output.dense")


def backend(name: str) -> Backend:
    """One of encoder_choice.NAMES but torch."""
    return OnnxRuntime(threads=1) if name == "onnxruntime" else OpenVino(name.partition("-")[2], threads=1)


def engines(model: Bert) -> dict[str, EncoderEngine]:
    """All engines by name, the graphs ready for every module."""
    made: dict[str, EncoderEngine] = {"torch": TorchEncoder(model)}
    for name in NAMES[1:]:
        graph = GraphEncoder(model, backend(name), SIDE)
        graph.adapt(modules(model, ALL))
        made[name] = graph
    return made


def modules(model: Bert, parts: Sequence[str]) -> frozenset[str]:
    """These linears of all layers."""
    return frozenset(f"encoder.layer.{layer}.{part}" for layer in range(model.layers) for part in parts)


def factors(
    model: Bert, rank: int, seed: int, parts: Sequence[str] = ALL, scale: float = 0.3
) -> dict[str, torch.Tensor]:
    """One tenant's adapters: A [rank, in] and B [out, rank] of the named linears."""
    dice = torch.Generator().manual_seed(seed)
    shapes = model.lora_shapes(rank)
    return {
        f"{name}.{part}": torch.randn(shapes[f"{name}.{part}"], generator=dice) * scale
        for name in sorted(modules(model, parts))
        for part in "AB"
    }


def filled(model: Bert, engine: EncoderEngine, rank: int, *tenants: dict[str, torch.Tensor]) -> SlotBank:
    """A bank of `rank` in the engine's type with these adapters in slots 1, 2…"""
    bank = SlotBank(model.lora_shapes(rank), slots=len(tenants), dtype=engine.table_dtype)
    for slot, tensors in enumerate(tenants, start=1):
        for name, value in tensors.items():
            bank.tables[name][slot] = value.to(bank.dtype)
            bank.holders[name] += 1
    return bank


def texts(model: Bert, count: int, seed: int = 0) -> list[list[int]]:
    """Rows of random tokens of every length."""
    chance = np.random.default_rng(seed)
    lengths = chance.integers(1, model.max_tokens, count)
    return [chance.integers(1, model.vocabulary, length).tolist() for length in lengths]


def worst(found: Floats, expected: Floats) -> float:
    """The largest difference of a number."""
    return float(np.abs(found - expected).max())


def alone(engine: EncoderEngine, rows: Sequence[Sequence[int]], mixes: Sequence[Mix]) -> Floats:
    """Each row in a batch of its own."""
    return np.concatenate(
        [
            engine.embed([row], [Mix(mix.bank, mix.slots[index : index + 1]) for mix in mixes])
            for index, row in enumerate(rows)
        ]
    )
