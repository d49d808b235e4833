"""The encoder's engines beside PEFT, transformers and each other: ratios of CPU time, one thread, in one run.

python -m tests.bench.encoder_engines    about four minutes
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from modeling.serving.bank import SlotBank
from modeling.serving.bert import Bert
from modeling.serving.encoder_choice import AUTOMATIC, choose
from modeling.serving.encoder_engines import EncoderEngine, TorchEncoder
from modeling.serving.encoder_sessions import Floats
from modeling.serving.encoding import EncoderRunner, read_tokenizer
from modeling.serving.heads import RANK_SLOTS
from modeling.serving.store import ArtifactStore
from tests.bench import encoder_rows, encoder_serving
from tests.bench.clinic_rows import load
from tests.bench.encoder_rows import (
    HuggingFace,
    Switching,
    bank,
    equal_rows,
    lora_tensors,
    one_each,
    ragged_rows,
    tokens,
)
from tests.bench.steps import base_folder, cpu_seconds

ROUNDS = 5
SIDE = ThreadPoolExecutor(2, "bench")


@dataclass(frozen=True)
class Found:
    """A figure of every round beside what was asked of it."""

    name: str
    values: Sequence[float]
    asked: float | None
    at_least: bool = True

    def line(self, width: int) -> str:
        """Aligned, with the median, the range and whether it is reached."""
        value = statistics.median(self.values)
        text = f"{self.name:<{width}}  {value:10.4g}  ({min(self.values):.3g} to {max(self.values):.3g})"
        if self.asked is None:
            return text
        reached = value >= self.asked if self.at_least else value <= self.asked
        sign = ">=" if self.at_least else "<="
        return f"{text:<{width + 36}}  asked {sign} {self.asked:g}  {'ok' if reached else 'MISSED'}"


def interleaved(calls: dict[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, list[float]]:
    """CPU seconds of each call, taken in turn after one run to warm up."""
    for call in calls.values():
        call()
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            taken[name].append(cpu_seconds(call))
    return taken


def ratios(taken: dict[str, list[float]], slow: str, fast: str) -> list[float]:
    """How many times faster `fast` was, round by round."""
    return [a / b for a, b in zip(taken[slow], taken[fast], strict=True)]


def adapters(
    model: Bert, engines: Sequence[EncoderEngine], peft: Switching, base: HuggingFace
) -> list[Found]:
    """64 tenants' adapters in a batch of equal lengths."""
    rows, banks = equal_rows(), {}
    calls: dict[str, Callable[[], object]] = {
        "peft": lambda: peft.embed_all(rows),
        "base": lambda: base.embed(rows),
    }
    truth = peft.embed_all(rows)
    found: list[Found] = []
    for engine in engines:
        banks[engine.name] = bank(model, engine.table_dtype)
        calls[f"{engine.name} plain"] = lambda engine=engine: engine.embed(rows)
        calls[engine.name] = lambda engine=engine: engine.embed(rows, one_each(banks[engine.name]))
    taken = interleaved(calls, 3)
    bars = {
        "torch": (5.0, None),
        engines[1].name: (12.0, 1.9),
    }  # the second is what a processor like this serves with
    for engine in engines:
        name = engine.name
        over_peft, over_base = bars.get(name, (None, None))
        answer = engine.embed(rows, one_each(banks[name]))
        found += [
            Found(f"{name}: 64 adapters / without", ratios(taken, f"{name} plain", name), 0.80),
            Found(f"{name}: 64 adapters / PEFT switching", ratios(taken, "peft", name), over_peft),
            Found(f"{name}: 64 adapters / transformers' base", ratios(taken, "base", name), over_base),
            Found(f"{name}: 64 adapters, cosine to PEFT's answers", [float((answer * truth).sum(1).min())], 0.999),
            Found(f"{name}: 64 adapters, tokens per CPU second", [tokens(rows) / s for s in taken[name]], None),
        ]  # fmt: skip
    return found


def packing(engines: Sequence[EncoderEngine], base: HuggingFace) -> list[Found]:
    """Rows of all lengths: nothing padded beside what the transformers library does with them."""
    rows = ragged_rows()
    calls: dict[str, Callable[[], object]] = {
        "padded": lambda: base.embed(rows),
        "one by one": lambda: base.one_by_one(rows),
    }
    for engine in engines:
        calls[engine.name] = lambda engine=engine: engine.embed(rows)
    taken = interleaved(calls)
    found = []
    for engine in engines:
        found.append(
            Found(
                f"{engine.name}: packed / padded in order of arrival",
                ratios(taken, "padded", engine.name),
                2.5,
            )
        )
        found.append(
            Found(f"{engine.name}: packed / one by one", ratios(taken, "one by one", engine.name), 1.5)
        )
    return found


def sameness(model: Bert, engines: Sequence[EncoderEngine]) -> list[Found]:
    """A row in a mixed batch beside the row alone."""
    rows, found = ragged_rows(), []
    for engine in engines:
        made: SlotBank = bank(model, engine.table_dtype)
        mixed = engine.embed(rows, one_each(made))
        alone = np.concatenate(
            [
                engine.embed([row], [encoder_rows.Mix(made, torch.tensor([slot]))])
                for slot, row in enumerate(rows, start=1)
            ]
        )
        bar = 1e-4 if engine.table_dtype == torch.float32 else 1e-2
        found.append(
            Found(
                f"{engine.name}: a mixed row - the row alone",
                [float(np.abs(mixed - alone).max())],
                bar,
                at_least=False,
            )
        )
    return found


def labels(engines: Sequence[EncoderEngine]) -> list[Found]:
    """How often the likeliest chapter of clinic texts is the one that torch's embedding gives, and is right."""
    clinic, tokenizer = load(), read_tokenizer(base_folder())
    chosen = np.random.default_rng(0).permutation(len(clinic.texts))
    train, test = chosen[2000:6000], chosen[:2000]
    targets = np.eye(len(clinic.names), dtype=np.float32)[clinic.labels[train]]
    features = clinic.features[train]
    weights = np.linalg.solve(features.T @ features + np.eye(features.shape[1]), features.T @ targets)
    rows = [one.ids for one in tokenizer.encode_batch([clinic.texts[index] for index in test])]
    answers: dict[str, Floats] = {}
    for engine in engines:
        parts = [engine.embed(rows[at : at + 64]) for at in range(0, len(rows), 64)]
        answers[engine.name] = (np.concatenate(parts) @ weights).argmax(1)
    return [
        line
        for name, answer in answers.items()
        for line in (
            Found(f"{name}: top label as with torch", [float((answer == answers["torch"]).mean())], 0.995),
            Found(f"{name}: top label right", [float((answer == clinic.labels[test]).mean())], None),
        )
    ]


def main() -> None:
    """Print every figure."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    sys.setswitchinterval(0.001)
    began = time.perf_counter()
    folder = base_folder()
    model, base = Bert(folder), HuggingFace(folder)
    names = [choose(model, SIDE, wanted=AUTOMATIC).name, "openvino-f32", "onnxruntime"]
    engines = [
        TorchEncoder(model),
        *(choose(model, SIDE, wanted=name) for name in dict.fromkeys(names) if name != "torch"),
    ]
    every = frozenset(name[:-2] for name in model.lora_shapes(8))
    for engine in engines[1:]:
        engine.adapt(every)  # type: ignore[attr-defined]
    found = adapters(model, engines, Switching(folder, model), base)
    found += packing(engines, base) + sameness(model, engines) + labels(engines)
    with tempfile.TemporaryDirectory() as made:
        store = ArtifactStore(SIDE)
        runner = EncoderRunner(model, read_tokenizer(folder), store, SIDE)
        large = [lora_tensors(model, tenant) for tenant in range(24)]
        work = encoder_serving.figures(runner, engines[1], large, Path(made), versions=2 * RANK_SLOTS[8])
        for name, values, asked, at_least in asyncio.run(work):
            found.append(Found(name, values, asked, at_least))
    width = max(len(one.name) for one in found)
    for one in found:
        print(one.line(width))
    print(f"{time.perf_counter() - began:.0f} s")
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
