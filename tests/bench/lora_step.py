"""CPU time of a private LoRA step over the same step without privacy: `python -m tests.bench.lora_step [rounds]`.

Both take the same rows of the clinic data through the same model, turn and turn about in one process.
"""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np
import torch

from modeling.core import bases
from modeling.core.encoder import Tokens, pad
from modeling.core.noise import NoiseSource
from modeling.core.privacy import OpenStepper, PrivateStepper, Stepper
from modeling.core.text_model import TextModel, TokenRows, micro_batches, token_rows
from tests.bench.clinic_rows import DATA_DIR, load

ASKED = 1.3
BATCH = 512
ROUNDS = 5
CPU = torch.device("cpu")


def _stepper(private: bool) -> Stepper:
    model = TextModel(bases.path(DATA_DIR / "models", "minilm-l6"), classes=21, rank=8, alpha=8.0, device=CPU)
    optimizer = torch.optim.SGD([value for value in model.parameters() if value.requires_grad], lr=0.01)
    if not private:
        return OpenStepper(model, optimizer, expected_batch=BATCH)
    return PrivateStepper(model, optimizer, sigma=0.5, clip=1.0, expected_batch=BATCH, source=NoiseSource())


def _seconds(stepper: Stepper, rows: TokenRows, chosen: np.ndarray) -> float:
    started = time.process_time()
    for index, units in micro_batches(rows, chosen, batch_tokens=2048):
        logits = stepper.model(*pad([rows.ids[row] for row in index], CPU))
        labels = torch.from_numpy(rows.labels[index])
        losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
        stepper.accumulate(losses, torch.from_numpy(units))
    stepper.finish()
    return time.process_time() - started


def main(rounds: int) -> None:
    torch.set_num_threads(1)
    clinic = load()
    ids = Tokens(bases.path(DATA_DIR / "models", "minilm-l6"))(clinic.texts[:8192])
    rows = token_rows(ids, clinic.labels[:8192], np.arange(8192))
    private, open_ = _stepper(private=True), _stepper(private=False)
    random = np.random.default_rng(0)
    times: list[tuple[float, float]] = []
    for _ in range(rounds + 1):
        chosen = np.sort(random.choice(8192, BATCH, replace=False))
        times.append((_seconds(private, rows, chosen), _seconds(open_, rows, chosen)))
    ratios = [ours / theirs for ours, theirs in times[1:]]  # the first round warms up
    with_, without = (statistics.median(column) for column in zip(*times[1:], strict=True))
    print(
        f"private step {with_:.2f} s, without privacy {without:.2f} s of CPU time, batch {BATCH}, {rounds} rounds"
    )
    print(
        f"ratio: median {statistics.median(ratios):.3f} (from {min(ratios):.3f} to {max(ratios):.3f}), asked {ASKED}"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
