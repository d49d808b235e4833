"""A small made-up table for tests: two classes, or a number, that follow from its columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from modeling.core import planning
from modeling.core.training import train
from modeling.core.types import Checkpoint, Event, Feature, Plan, Recipe, Shape, Trained, TrainingData

FEATURES = (
    Feature("age", "number", low=0, high=100),
    Feature("home", "category", categories=("rents", "owns")),
    Feature("amount", "number", low=0, high=10),
)
TARGET = Feature("price", "number", low=100, high=300)
SEX = Feature("sex", "category", categories=("female", "male"))
NOWHERE = Path("nowhere")  # table models read no weights


def make_table(rows: int = 1500, *, rows_a_unit: int = 1, seed: int = 0) -> TrainingData:
    """Rows whose class and price follow age, home and amount; a fifth of the units is held out."""
    random = np.random.default_rng(seed)
    age, amount = random.uniform(0, 100, rows), random.uniform(0, 10, rows)
    home, sex = random.integers(2, size=rows), random.integers(2, size=rows)
    score = np.abs(age - 50) / 25 - 1 + 0.8 * home + 0.1 * amount
    labels = (score + 0.5 * random.normal(size=rows) > 0.4).astype(int)
    units = np.arange(rows) // rows_a_unit
    cells: dict[str, list[Any]] = {
        "age": [None if at % 17 == 0 else f"{value:.1f}" for at, value in enumerate(age)],
        "home": [("rents", "owns")[value] for value in home],
        "amount": amount.tolist(),
    }
    return TrainingData(
        units=units.tolist(),
        held_out=(np.arange(units[-1] + 1) % 5 == 4).tolist(),
        labels=labels.tolist(),
        targets=(200 + 40 * score).tolist(),
        cells=cells,
        groups={"sex": sex.tolist()},
    )


def make_plan(
    data: TrainingData, *, task: str = "classification", method: str = "auto", epsilon: float | None = 8.0, **more: Any
) -> Plan:  # fmt: skip
    """The plan of a recipe on these rows."""
    recipe = Recipe(
        task,
        "tabular",
        method,
        labels=("no", "yes") if task == "classification" else (),
        epsilon=epsilon,
        privacy_off_reason="" if epsilon else "a test",
        features=FEATURES,
        target=TARGET if task == "regression" else None,
        protected=(SEX,),
    )
    held_out = sum(data.held_out)
    shape = Shape(len(data.held_out) - held_out, held_out, len(data.units), classes=len(recipe.labels))
    return planning.plan(replace(recipe, **more), shape)


def run(plan: Plan, data: TrainingData, **more: Any) -> list[Event]:
    """All events of a run."""
    return list(train(plan, data, models_dir=NOWHERE, **more))


def result_of(events: list[Event]) -> Trained:
    """The last event."""
    assert isinstance(events[-1], Trained)
    return events[-1]


def until_step(events: Iterator[Event], step: int) -> tuple[Checkpoint, list[Event]]:
    """Take events up to the checkpoint at or after a step: (it, all events taken)."""
    taken: list[Event] = []
    for event in events:
        taken.append(event)
        if isinstance(event, Checkpoint) and event.step >= step:
            return event, taken
    raise AssertionError("the run ended before that step")
