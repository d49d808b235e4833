"""What the step benches share: the clinic's rows as tokens, one step through a stepper, CPU seconds, peak memory."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from modeling.core import bases
from modeling.core.encoder import Tokens, pad
from modeling.core.memory import Indices, TokenRows, micro_batches, token_rows
from modeling.core.privacy import Stepper
from tests.bench.clinic_rows import DATA_DIR, load

CPU = torch.device("cpu")
MICRO_BATCH_TOKENS = 2048


def base_folder() -> Path:
    """Where the encoder lies."""
    return bases.path(DATA_DIR / "models", "minilm-l6")


def clinic_tokens(count: int) -> TokenRows:
    """The first rows of the clinic data, each a unit of its own."""
    clinic = load()
    ids = Tokens(base_folder())(clinic.texts[:count])
    return token_rows(ids, clinic.labels[:count], np.arange(count))


def take_step(stepper: Stepper, rows: TokenRows, chosen: Indices) -> None:
    """One logical step."""
    for index, units in micro_batches(rows, chosen, batch_tokens=MICRO_BATCH_TOKENS):
        logits = stepper.model(*pad([rows.ids[row] for row in index], CPU))
        labels = torch.from_numpy(rows.labels[index])
        losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        stepper.accumulate(losses, torch.from_numpy(units))
    stepper.finish()


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time of the process while `work` runs."""
    started = time.process_time()
    work()
    return time.process_time() - started


def peak_bytes(work: Callable[[], object]) -> int:
    """The most memory a fresh child process held resident over the whole of `work`."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    _, _, usage = os.wait4(child, 0)
    return int(usage.ru_maxrss) * 1024


@dataclass(frozen=True)
class Line:
    """A figure with what was asked of it."""

    name: str
    found: Sequence[float]
    asked: float | None = None


def table(title: str, lines: Sequence[Line]) -> None:
    """Print medians with their range beside what was asked."""
    print(title)
    width = max(len(line.name) for line in lines)
    for line in lines:
        value = statistics.median(line.found)
        spread = f"{min(line.found):.3f} to {max(line.found):.3f}"
        asked = (
            ""
            if line.asked is None
            else f"asked <= {line.asked:.2f}  {'ok' if value <= line.asked else 'MISSED'}"
        )
        print(f"  {line.name:<{width}}  {value:7.3f}  ({spread})  {asked}".rstrip())
    sys.stdout.flush()
