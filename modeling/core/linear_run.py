"""Full-batch noisy descent on a linear model, block by block: charges, checkpoints, held-out releases, progress."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from modeling.core.noise import NoiseSource
from modeling.core.spending import Spending
from modeling.core.types import Array, Checkpoint, CoreError, Event, Plan, Progress, Tensors

BLOCKS = 32  # charges, checkpoints and progress events of a run


class Rows(Protocol):
    """Training rows of a linear model."""

    def gradient(self, weights: Array, *, clip: float | None) -> Array:
        """Sum over units of the unit's gradient, clipped to norm `clip` (None: not clipped), shaped as `weights`."""
        ...


class Watcher(Protocol):
    """Charged releases about held-out rows while a model trains."""

    stops: list[int]

    def run(self, step: int, outputs: Callable[[], Array]) -> Iterator[Event]:
        """One release for the model at `step`, unless none is left; `outputs` gives its answers."""
        ...


@dataclass
class _State:
    """What a step changes: weights and velocity [K, d + 1], and the sum of the iterates averaged so far."""

    weights: Array
    velocity: Array
    total: npt.NDArray[np.float64]
    averaged: int = 0

    def tensors(self) -> Tensors:
        return {
            "weights": self.weights.copy(),
            "velocity": self.velocity.copy(),
            "total": self.total.copy(),
            "averaged": np.array([self.averaged], dtype=np.int64),
        }


class LinearRun:
    """One attempt at a plan whose mechanism "train" has q = 1; settings: learning_rate and momentum."""

    def __init__(
        self,
        plan: Plan,
        rows: Rows,
        start: Array,
        *,
        spending: Spending,
        source: NoiseSource,
        resume: Checkpoint | None,
        spent: Mapping[str, int],
    ) -> None:
        """`start` [K, d + 1] are the weights without a checkpoint; raises CoreError when no step is left to run."""
        self._plan, self._rows, self._spending, self._noise = plan, rows, spending, source
        self._mechanism = next((item for item in plan.mechanisms if item.name == "train"), None)
        done = spent.get("train", 0) if self._mechanism else 0
        self.step = done if self._mechanism else (resume.step if resume else 0)
        if resume is None and self.step >= plan.steps:
            raise CoreError(
                "All reserved steps were used and no checkpoint is left.", code="reservation_used"
            )
        self._state = _State(start, np.zeros_like(start), np.zeros(start.shape))
        if resume:
            found = resume.tensors
            self._state = _State(
                found["weights"], found["velocity"], found["total"].copy(), int(found["averaged"][0])
            )

    @property
    def weights(self) -> Array:
        """The mean iterate of the last half, or the current one before that half begins."""
        state = self._state
        if not state.averaged:
            return state.weights
        return np.asarray(state.total / state.averaged, dtype=np.float32)

    def events(self, watcher: Watcher, outputs: Callable[[], Array]) -> Iterator[Event]:
        """Run what remains; afterwards `weights` is the result."""
        started, first, total = time.monotonic(), self.step, self._plan.steps
        for stop in _stops(self.step, total, watcher.stops):
            if self._mechanism:
                yield self._spending.charge(self._mechanism.name, stop - self.step)
            while self.step < stop:
                self._take_step()
            yield Checkpoint(self.step, self._state.tensors())
            if stop in watcher.stops:
                yield from watcher.run(self.step, outputs)
            seconds = max(time.monotonic() - started, 1e-9)
            rate = (self.step - first) / seconds
            yield Progress(
                self.step,
                total,
                self._spending.epsilon(),
                # Of the public number of people: how many have a row that fits the recipe is private.
                examples_per_second=rate * self._plan.shape.train_units,
                seconds=seconds,
                seconds_left=(total - self.step) / rate,
            )
        # Nothing to do unless the attempt before this one stopped between its last step and the release of it.
        yield from watcher.run(self.step, outputs)

    def _take_step(self) -> None:
        """v = m v + (1 − m) g, W −= lr v, with g the noised clipped sum over the constant number of units."""
        state, settings = self._state, self._plan.settings
        clip = self._mechanism.clip if self._mechanism else None
        total = self._rows.gradient(state.weights, clip=clip).astype(np.float64)
        if self._mechanism:
            scale = self._mechanism.sigma * self._mechanism.clip
            total += scale * self._noise.normal(total.size).reshape(total.shape)
        gradient = total / self._plan.shape.train_units
        momentum = float(settings["momentum"])
        state.velocity = np.asarray(momentum * state.velocity + (1 - momentum) * gradient, dtype=np.float32)
        state.weights = state.weights - np.float32(settings["learning_rate"]) * state.velocity
        self.step += 1
        if 2 * self.step > self._plan.steps:
            state.total += state.weights
            state.averaged += 1


def _stops(step: int, steps: int, releases: list[int]) -> list[int]:
    """Where blocks end after `step`: about BLOCKS evenly spread points, every release, and the last step."""
    size = max(1, math.ceil(steps / BLOCKS))
    return sorted(stop for stop in {*range(size, steps, size), *releases, steps} if stop > step)
