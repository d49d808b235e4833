"""How long a run should take on one worker, from its plan alone; a deployment corrects it by its own finished runs."""

from __future__ import annotations

from dataclasses import dataclass

from modeling.core.types import Plan

SECONDS_TO_START = 3.0  # a worker's child, its imports and the weights


@dataclass(frozen=True)
class Pace:
    """Seconds of one worker on 2 cores with bf16 instructions and short texts (about 15 tokens a row)."""

    row: float = 0.0  # read, decrypted and embedded once
    step: float = 0.0  # of any step, e.g. the noise on all parameters
    example: float = 0.0  # one unit in one step
    cell: float = 0.0  # one unit and class in one step of a linear head
    item: float = 0.0  # one item of the catalogue
    start: float = SECONDS_TO_START


# Fitted to whole runs of the demo jobs; what a deployment has measured itself corrects them (queries/paces.py).
PACES: dict[str, Pace] = {
    "head": Pace(row=0.001, cell=5e-8),
    "lora": Pace(row=0.0012, step=0.1, example=0.0033, cell=5e-8),
    "full": Pace(row=0.0012, step=0.8, example=0.005, cell=5e-8),
    "ssr": Pace(row=6e-6, step=0.5, item=0.0012),
    "popularity": Pace(row=6e-6, step=0.5, item=0.0012),
    "additive": Pace(row=6e-5, cell=6e-7, start=0.7),  # numpy alone: no weights to load
    "network": Pace(row=6e-5, step=0.01, example=6e-5),
}
USUAL = Pace(row=0.001, step=0.1, example=0.003)  # of a method that nobody has measured yet


def seconds(plan: Plan) -> float:
    """The whole run; a head that knows better says so in its settings (`estimated_seconds`)."""
    if "estimated_seconds" in plan.settings:
        return SECONDS_TO_START + float(plan.settings["estimated_seconds"])
    pace, shape = PACES.get(plan.method, USUAL), plan.shape
    once = pace.start + pace.row * shape.rows + pace.item * shape.items
    return once + float(plan.settings.get("sweep_trials", 1)) * _steps(plan, pace)


def _steps(plan: Plan, pace: Pace) -> float:
    """All steps of one run: of linear heads over everybody, and of those that sample their batches."""
    shape = plan.shape
    cell = pace.cell * shape.train_units * max(shape.classes, 1)
    sampled = [one for one in plan.mechanisms if one.partition == "train" and one.sampling_rate < 1]
    if not sampled:
        batch = float(plan.settings.get("expected_batch", shape.train_units))
        return plan.steps * (pace.step + pace.example * batch + cell)
    full = sum(one.count for one in plan.mechanisms if one.partition == "train" and one.sampling_rate >= 1)
    examples = sum(one.count * one.sampling_rate * shape.train_units for one in sampled)
    return full * cell + pace.step * sum(one.count for one in sampled) + pace.example * examples
