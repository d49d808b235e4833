"""Which engine runs the encoder: each is compared with torch and measured, the fastest that agrees serves."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import numpy as np
import torch

from modeling.serving.bank import Mix, SlotBank
from modeling.serving.bert import Bert
from modeling.serving.encoder_engines import EncoderEngine, GraphEncoder, TorchEncoder
from modeling.serving.encoder_sessions import Backend, Floats, OnnxRuntime, OpenVino, has_bfloat16

log = logging.getLogger("cloister.engine")

AUTOMATIC = "auto"
NAMES = ("torch", "openvino-bf16", "openvino-f32", "onnxruntime")
ROUNDS = (("openvino-bf16", "openvino-f32"), ("onnxruntime",))  # the second only where the first finds none
ADAPTED = (
    "attention.self.query",
    "attention.self.value",
)  # what our training adapts; others cost a compilation
LEAST_COSINE = 0.999  # in bfloat16
MOST_APART = 1e-4  # in float32
_ROWS, _SLOTS, _RANK, _SEED = 16, 3, 8, 6
_SCALE = 0.05

Make = Callable[[Bert, Backend, Executor], GraphEncoder]


@dataclass(frozen=True, slots=True, eq=False)
class _Trial:
    """Fixed rows, and what torch makes of them without and with adapters."""

    rows: list[list[int]]
    plain: Floats
    slots: torch.Tensor
    factors: dict[str, torch.Tensor]
    adapted: Floats
    seconds: float

    def bank(self, model: Bert, dtype: torch.dtype) -> SlotBank:
        """The trial's adapters as an engine wants them."""
        bank = SlotBank(model.lora_shapes(_RANK), slots=_SLOTS, dtype=dtype)
        for name, values in self.factors.items():
            bank.tables[name][1:] = values.to(dtype)
            bank.holders[name] = _SLOTS
        return bank


def choose(
    model: Bert, executor: Executor, *, wanted: str = AUTOMATIC, make: Make = GraphEncoder
) -> EncoderEngine:
    """The engine to serve with: `wanted` one of NAMES or AUTOMATIC. Takes a second or two of CPU time.

    What crashes, disagrees or is slower than torch is never chosen; then torch is.
    """
    reference = TorchEncoder(model)
    if wanted == reference.name or model.device.type != "cpu":
        return reference
    trial = _trial(model, reference)
    for names in ROUNDS if wanted == AUTOMATIC else ((wanted,),):
        tried: list[tuple[float, GraphEncoder]] = []
        for backend in _backends(names):
            engine, seconds = _try(model, trial, backend, executor, make)
            if engine is not None and (seconds < trial.seconds or wanted != AUTOMATIC):
                tried.append((seconds, engine))
        for seconds, engine in sorted(tried, key=lambda one: one[0]):
            if _adapts(model, trial, engine):
                rates = [sum(map(len, trial.rows)) / taken for taken in (seconds, trial.seconds)]
                log.info(
                    "the encoder runs on %s: %.0f tokens per CPU second, torch %.0f", engine.name, *rates
                )
                return engine
    log.warning("the encoder stays on torch: no other engine agrees with it and is faster")
    return reference


def _backends(names: Sequence[str]) -> list[Backend]:
    threads = torch.get_num_threads()
    found: list[Backend] = []
    for name in names:
        try:
            if name == "onnxruntime":
                found.append(OnnxRuntime(threads=threads))
            elif name == "openvino-f32" or has_bfloat16():
                found.append(OpenVino(name.removeprefix("openvino-"), threads=threads))
        except (ImportError, OSError, RuntimeError) as error:
            log.warning("the encoder cannot run on %s: %s", name, error)
    return found


def _trial(model: Bert, reference: TorchEncoder) -> _Trial:
    chance = np.random.default_rng(_SEED)
    words, longest = model.vocabulary, min(48, model.max_tokens)
    rows = [chance.integers(1, words, length).tolist() for length in chance.integers(3, longest, _ROWS)]
    dice = torch.Generator().manual_seed(_SEED)
    shapes = model.lora_shapes(_RANK)
    factors = {
        f"{name}.{part}": torch.randn(_SLOTS, *shapes[f"{name}.{part}"], generator=dice) * _SCALE
        for name in _modules(model)
        for part in "AB"
    }
    slots = torch.arange(_ROWS) % (_SLOTS + 1)
    empty = np.zeros((0, model.width), dtype=np.float32)
    trial = _Trial(rows, empty, slots, factors, empty, 0.0)
    plain, seconds = _timed(reference, rows)
    adapted = reference.embed(rows, [Mix(trial.bank(model, torch.float32), slots)])
    return replace(trial, plain=plain, adapted=adapted, seconds=seconds)


def _modules(model: Bert) -> frozenset[str]:
    return frozenset(f"encoder.layer.{layer}.{part}" for layer in range(model.layers) for part in ADAPTED)


def _try(
    model: Bert, trial: _Trial, backend: Backend, executor: Executor, make: Make
) -> tuple[GraphEncoder | None, float]:
    """The engine and its CPU seconds for the trial's rows, or None when it fails or disagrees."""
    try:
        engine = make(model, backend, executor)
        found, seconds = _timed(engine, trial.rows)
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        log.warning("the encoder cannot run on %s: %s", backend.name, error)
        return None, 0.0
    if not agrees(found, trial.plain, half=backend.half):
        log.warning("%s disagrees with torch and is not used", backend.name)
        return None, 0.0
    return engine, seconds


def _adapts(model: Bert, trial: _Trial, engine: GraphEncoder) -> bool:
    """Whether it agrees with torch on rows with adapters of different tenants beside rows without."""
    try:
        engine.adapt(_modules(model))
        bank = trial.bank(model, engine.table_dtype)
        found = engine.embed(trial.rows, [Mix(bank, trial.slots)])
    except (RuntimeError, ValueError) as error:
        log.warning("the encoder cannot adapt on %s: %s", engine.name, error)
        return False
    off, effect = np.linalg.norm(found - trial.adapted), np.linalg.norm(trial.plain - trial.adapted)
    if agrees(found, trial.adapted, half=engine.table_dtype == torch.bfloat16) and off < effect / 2:
        return True
    log.warning("%s disagrees with torch about adapters and is not used", engine.name)
    return False


def agrees(found: Floats, expected: Floats, *, half: bool) -> bool:
    """Whether unit vectors [n, width] are the same: by cosine in bfloat16, by every number in float32."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        return False
    if half:
        return bool((found * expected).sum(axis=1).min() >= LEAST_COSINE)
    return bool(np.abs(found - expected).max() <= MOST_APART)


def _timed(engine: EncoderEngine, rows: Sequence[Sequence[int]]) -> tuple[Floats, float]:
    """Embeddings, and the least CPU seconds of three runs after the first."""
    found = engine.embed(rows)
    taken = []
    for _ in range(3):
        began = time.process_time()
        engine.embed(rows)
        taken.append(time.process_time() - began)
    return found, min(taken)
