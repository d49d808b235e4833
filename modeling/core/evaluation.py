"""Held-out accuracy as a noised count: a unit adds at most 1, and every release is a charged composition."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from modeling.core import accounting
from modeling.core.noise import NoiseSource
from modeling.core.spending import Spending
from modeling.core.types import Array, Event, HeldOut, Mechanism, Plan

MECHANISM = "held_out"
RELEASES = 8  # live evaluations of a run, fixed in advance
NOISE_GOAL = 0.003  # more precise than this costs budget and tells a reader nothing
LARGEST_NOISE = 0.1  # above this the number would mislead: no live evaluation is planned
SMALLEST_UNITS = 20


def mechanism_for(
    units: int, *, epsilon: float | None, delta: float, steps: int, releases: int = RELEASES
) -> Mechanism | None:
    """The held-out mechanism of a run of `steps`, or None when too few units would drown in its noise.

    Meets (epsilon, delta), and spends less where a standard error of NOISE_GOAL on the accuracy needs less.
    """
    if epsilon is None or units < SMALLEST_UNITS:
        return None
    releases = len(schedule(steps, releases))
    sigma = accounting.sigma_for(epsilon, delta, count=releases)
    if sigma / units > LARGEST_NOISE:
        return None
    return Mechanism(MECHANISM, max(sigma, NOISE_GOAL * units), 1.0, releases, partition="held_out")


def schedule(steps: int, releases: int = RELEASES) -> list[int]:
    """After which step each release happens: evenly spread, the last one after the last step, none twice."""
    return sorted({math.ceil((index + 1) * steps / releases) for index in range(releases)})


def per_unit(
    correct: npt.NDArray[np.bool_], units: Sequence[int] | npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Each unit's share of correct rows, float64 [units present], in [0, 1]: what bounds a unit's part in the count."""
    _, index = np.unique(np.asarray(units), return_inverse=True)
    return np.bincount(index, weights=correct.astype(np.float64)) / np.bincount(index)


def release(
    shares: npt.NDArray[np.float64], *, sigma: float, total: int, step: int, source: NoiseSource
) -> HeldOut:
    """The noised accuracy over `total` held-out units (a public number); sigma 0 only when privacy is off."""
    noisy = float(shares.sum()) + (sigma * float(source.normal(1)[0]) if sigma else 0.0)
    accuracy = min(max(noisy / max(total, 1), 0.0), 1.0)
    return HeldOut(step=step, accuracy=accuracy, noise_error=sigma / max(total, 1), total=total)


class Evaluator:
    """The live evaluations of one run of a classifier: when they happen, charged one by one, noised by the plan."""

    def __init__(
        self,
        plan: Plan,
        spending: Spending,
        labels: npt.NDArray[np.int64],
        units: npt.NDArray[np.int64],
        *,
        source: NoiseSource,
    ) -> None:
        """`labels` and `units` [m] of the held-out rows; `plan.settings["releases"]` evaluations at most."""
        self.stops = schedule(plan.steps, int(plan.settings["releases"]))
        self._plan = plan
        self._spending = spending
        self._labels, self._units = labels, units
        self._source = source
        self._sigma = next((item.sigma for item in plan.mechanisms if item.name == MECHANISM), 0.0)
        self._latest: HeldOut | None = None

    def run(self, step: int, logits: Callable[[], Array]) -> Iterator[Event]:
        """One charged release for the model at `step`, unless none is left, planned or new; `logits` gives [m, K]."""
        private = self._plan.recipe.epsilon is not None
        if (self._latest and self._latest.step == step) or not len(self._labels):
            return
        if private and not self._spending.remaining(MECHANISM):
            return
        if private:
            yield self._spending.charge(MECHANISM, 1)
        shares = per_unit(logits().argmax(axis=1) == self._labels, self._units)
        total = self._plan.shape.held_out_units
        self._latest = release(shares, sigma=self._sigma, total=total, step=step, source=self._source)
        yield self._latest

    def metrics(self, step: int) -> dict[str, float]:
        """The released accuracy of the model at `step`, if there is one."""
        if self._latest is None or self._latest.step != step:
            return {}
        return {"accuracy": self._latest.accuracy, "accuracy_noise_error": self._latest.noise_error}
