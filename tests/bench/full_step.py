"""CPU time of a private full fine-tuning step over the same without privacy: `python -m tests.bench.full_step`.

An expected batch of 1,024 units of the clinic data, secure noise included and shown alone. Twice: the parameters that
our recipe trains, and every parameter with the embedding tables.
"""

from __future__ import annotations

import sys
from functools import partial

import numpy as np
import torch

from modeling.core.noise import NoiseSource
from modeling.core.privacy import GhostStepper, OpenStepper, Stepper
from modeling.core.text_model import TextModel
from tests.bench.steps import CPU, Line, base_folder, clinic_tokens, cpu_seconds, table, take_step

BATCH = 1024
ROUNDS = 5
POOL = 8192


def _stepper(*, private: bool, tables: bool) -> Stepper:
    model = TextModel(base_folder(), classes=21, rank=0, device=CPU, tables=tables)
    optimizer = torch.optim.SGD([value for value in model.parameters() if value.requires_grad], lr=0.01)
    if not private:
        return OpenStepper(model, optimizer, expected_batch=BATCH)
    return GhostStepper(
        model,
        optimizer,
        sigma=0.5,
        clip=1.0,
        expected_batch=BATCH,
        source=NoiseSource(),
        fast=model.fast,
    )


def _measure(rounds: int, *, tables: bool) -> None:
    rows = clinic_tokens(POOL)
    random = np.random.default_rng(0)
    private, open_ = _stepper(private=True, tables=tables), _stepper(private=False, tables=tables)
    count = sum(value.numel() for value in private.model.parameters() if value.requires_grad)
    source, room = NoiseSource(), np.zeros(count, dtype=np.float32)
    times: list[tuple[float, float, float]] = []
    for _ in range(rounds + 1):
        chosen = np.sort(random.choice(POOL, BATCH, replace=False)).astype(np.int64)
        times.append(
            (
                cpu_seconds(partial(take_step, private, rows, chosen)),
                cpu_seconds(partial(take_step, open_, rows, chosen)),
                cpu_seconds(partial(source.add_to, room, 1.0)),
            )
        )
    ours, theirs, noise = (list(column) for column in zip(*times[1:], strict=True))  # the first warms up
    what = "all parameters" if tables else "all layers, without the embedding tables (the recipe)"
    table(
        f"full step, {what}: {count / 1e6:.1f} million parameters, batch {BATCH}, {rounds} rounds",
        [
            Line("private step with secure noise, s", ours),
            Line("  of it the noise, s", noise),
            Line("without privacy, s", theirs),
            Line("private / without privacy", [a / b for a, b in zip(ours, theirs, strict=True)], 1.90),
        ],
    )


def main(rounds: int) -> None:
    torch.set_num_threads(1)
    for tables in (False, True):
        _measure(rounds, tables=tables)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
