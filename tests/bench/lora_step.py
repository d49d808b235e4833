"""CPU time and memory of a private LoRA step, beside no privacy and plain Opacus: `python -m tests.bench.lora_step`.

All take the same rows of the clinic data through the same model, turn and turn about in one process. Secure noise is
inside our figure; Opacus draws its noise from torch's generator.
"""

from __future__ import annotations

import sys
import warnings
from functools import partial

import numpy as np
import torch
from opacus import PrivacyEngine
from torch.utils.data import DataLoader, TensorDataset

from modeling.core.device import training_dtype
from modeling.core.memory import Indices, TokenRows
from modeling.core.noise import NoiseSource
from modeling.core.privacy import OpenStepper, PrivateStepper, Stepper
from modeling.core.text_model import TextModel
from tests.bench.steps import CPU, Line, base_folder, clinic_tokens, cpu_seconds, peak_bytes, table, take_step

BATCH = 512
ROUNDS = 7


class PlainOpacus:
    """The same step as a customer of Opacus would write it: make_private, then micro-batches by skipped steps."""

    def __init__(self, module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        loader = DataLoader(TensorDataset(torch.zeros(BATCH * 16)), batch_size=BATCH)
        self.model, self.optimizer, _ = PrivacyEngine().make_private(
            module=module.train(),
            optimizer=optimizer,
            data_loader=loader,
            noise_multiplier=0.5,
            max_grad_norm=1.0,
            loss_reduction="sum",
        )

    def accumulate(self, row_losses: torch.Tensor, units: torch.Tensor) -> None:
        row_losses.sum().backward()
        self.optimizer.signal_skip_step(True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def discard(self) -> None:
        raise NotImplementedError

    def finish(self) -> None:
        for parameter in self.optimizer.params:
            parameter.grad_sample = torch.zeros((0, *parameter.shape))
        self.optimizer.signal_skip_step(False)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def _stepper(kind: str) -> Stepper:
    model = TextModel(base_folder(), classes=21, rank=8, alpha=8.0, device=CPU)
    optimizer = torch.optim.SGD([value for value in model.parameters() if value.requires_grad], lr=0.01)
    if kind == "open":
        return OpenStepper(model, optimizer, expected_batch=BATCH)
    if kind == "opacus":
        return PlainOpacus(model, optimizer)
    return PrivateStepper(model, optimizer, sigma=0.5, clip=1.0, expected_batch=BATCH, source=NoiseSource())


def _memory(kind: str, rows: TokenRows, chosen: Indices) -> int:
    def work() -> None:
        stepper = _stepper(kind)
        for _ in range(2):
            take_step(stepper, rows, chosen)

    return peak_bytes(work)


def main(rounds: int) -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    rows = clinic_tokens(8192)
    random = np.random.default_rng(0)

    def batch() -> Indices:
        return np.sort(random.choice(8192, BATCH, replace=False)).astype(np.int64)

    first = batch()
    idle = peak_bytes(lambda: None)
    memory = {kind: _memory(kind, rows, first) for kind in ("ours", "open")}
    steppers = {kind: _stepper(kind) for kind in ("ours", "open", "opacus")}
    times: dict[str, list[float]] = {kind: [] for kind in steppers}
    for _ in range(rounds + 1):
        chosen = batch()
        for kind, stepper in steppers.items():
            times[kind].append(cpu_seconds(partial(take_step, stepper, rows, chosen)))
    ours, open_, opacus = (times[kind][1:] for kind in ("ours", "open", "opacus"))  # the first round warms up
    table(
        f"LoRA step, batch {BATCH}, {rounds} rounds, CPU time, layers in {training_dtype(CPU)}",
        [
            Line("our step, s", ours),
            Line("without privacy, s", open_),
            Line("plain Opacus make_private, s", opacus),
            Line("ours / without privacy", [a / b for a, b in zip(ours, open_, strict=True)], 1.20),
            Line("ours / plain Opacus", [a / b for a, b in zip(ours, opacus, strict=True)], 1.05),
            Line(
                "peak memory of the process, ours / without privacy", [memory["ours"] / memory["open"]], 1.10
            ),
            Line("  of it above the idle process", [(memory["ours"] - idle) / (memory["open"] - idle)]),
        ],
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
