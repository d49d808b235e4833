"""What every head offers: a plan in numbers, and a training run as a generator of events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

from modeling.core.types import Checkpoint, Event, Plan, Recipe, Shape, TrainingData


class Head(Protocol):
    """One way to train one task. Classes take no arguments and keep no state between runs."""

    task: str
    method: str

    def plan(self, recipe: Recipe, shape: Shape, device: str) -> Plan:
        """Resolve the recipe into mechanisms and settings; raises CannotTrain. Touches no data."""
        ...

    def train(
        self,
        plan: Plan,
        data: TrainingData,
        *,
        models_dir: Path,
        resume: Checkpoint | None,
        spent: Mapping[str, int],
    ) -> Iterator[Event]:
        """Run the plan. A Charge is yielded before the gradients of its block; the last event is Trained.

        `spent` counts, by mechanism name, the compositions that earlier attempts were charged: this run uses
        only what remains, starting from `resume` with fresh randomness.
        """
        ...
