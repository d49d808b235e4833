"""What a regression releases about held-out people: live mean errors and, at the end, how large errors are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from modeling.core import evaluation
from modeling.core.noise import NoiseSource
from modeling.core.spending import Spending
from modeling.core.types import Array, Event, HeldOut, Plan

# Upper edges of the error bins, as shares of the declared range.
EDGES = np.array(
    [0.005, 0.01, 0.02, 0.03, 0.045, 0.06, 0.08, 0.1, 0.125, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 1.0]
)
COVERAGE = 0.9  # share of people whose number lies inside the answered interval

Floats = npt.NDArray[np.float64]


def errors_of(places: npt.NDArray[Any], answers: npt.NDArray[Any]) -> Floats:
    """Absolute errors [m] as shares of the declared range, in [0, 1], of places [m] or [m, 1] in [-1, 1]."""
    found = np.clip(np.asarray(places, dtype=np.float64).reshape(-1), -1.0, 1.0)
    return np.asarray(np.abs(np.nan_to_num(found) - answers) / 2, dtype=np.float64)


def histogram(errors: Floats, units: npt.NDArray[np.int64]) -> Floats:
    """Sum over units of the unit's shares of rows in each error bin: a unit adds a vector of norm at most 1."""
    _, index, sizes = np.unique(units, return_inverse=True, return_counts=True)
    cells = np.zeros(len(EDGES))
    np.add.at(cells, np.searchsorted(EDGES, errors).clip(max=len(EDGES) - 1), 1 / sizes[index])
    return cells


def spread_of(noised: Floats, total: int) -> float:
    """The error, as a share of the range, below which COVERAGE of `total` people lie by a noised histogram."""
    below = np.maximum.accumulate(np.cumsum(noised)) / max(total, 1)
    at = int(np.searchsorted(below, COVERAGE))
    if at >= len(EDGES):
        return 1.0
    low, high = (float(EDGES[at - 1]), float(below[at - 1])) if at else (0.0, 0.0)
    share = (COVERAGE - high) / max(float(below[at]) - high, 1e-9)
    return low + min(max(share, 0.0), 1.0) * (float(EDGES[at]) - low)


class ErrorWatcher:
    """The live releases of one regression run. Its accuracy is 1 − mean absolute error / declared range."""

    def __init__(
        self,
        plan: Plan,
        spending: Spending,
        answers: npt.NDArray[Any],
        units: npt.NDArray[np.int64],
        *,
        source: NoiseSource,
    ) -> None:
        """`answers` (places in [-1, 1]) and `units`, [m] each, of the held-out rows."""
        self.stops = evaluation.schedule(plan.steps, int(plan.settings["releases"]))
        self._plan, self._spending, self._source = plan, spending, source
        self._answers, self._units = answers, units
        self._sigmas = {item.name: item.sigma for item in plan.mechanisms}
        self._latest: HeldOut | None = None
        self._spread: float | None = None

    def run(self, step: int, outputs: Callable[[], Array]) -> Iterator[Event]:
        """One charged release of the mean error of the model at `step`, unless none is left; `outputs` [m, 1]."""
        if (self._latest and self._latest.step == step) or not self._may_release(evaluation.MECHANISM):
            return
        if self._is_private:
            yield self._spending.charge(evaluation.MECHANISM, 1)
        shares = evaluation.per_unit(1 - errors_of(outputs(), self._answers), self._units)
        self._latest = evaluation.release(
            shares,
            sigma=self._sigmas.get(evaluation.MECHANISM, 0.0),
            total=self._plan.shape.held_out_units,
            step=step,
            source=self._source,
        )
        yield self._latest

    def measure_spread(self, outputs: Callable[[], Array]) -> Iterator[Event]:
        """One charged release of the finished model's error bins, from which intervals are answered."""
        if not self._may_release(evaluation.CALIBRATION):
            return
        if self._is_private:
            yield self._spending.charge(evaluation.CALIBRATION, 1)
        cells = histogram(errors_of(outputs(), self._answers), self._units)
        cells += self._sigmas.get(evaluation.CALIBRATION, 0.0) * self._source.normal(len(cells))
        self._spread = spread_of(cells, self._plan.shape.held_out_units)

    @property
    def _is_private(self) -> bool:
        return self._plan.recipe.epsilon is not None

    def _may_release(self, name: str) -> bool:
        # With privacy also where no held-out row fits the recipe: a release left out would tell that there is none.
        return self._spending.remaining(name) > 0 if self._is_private else len(self._answers) > 0

    def metrics(self, step: int) -> dict[str, float]:
        """The released figures of the model at `step`, errors in the target's own unit."""
        target = self._plan.recipe.target
        if self._latest is None or self._latest.step != step or target is None:
            return {}
        span = target.high - target.low
        found = {
            "accuracy": self._latest.accuracy,
            "accuracy_noise_error": self._latest.noise_error,
            "mean_absolute_error": (1 - self._latest.accuracy) * span,
            "mean_absolute_error_noise_error": self._latest.noise_error * span,
        }
        return found if self._spread is None else found | {"nine_in_ten_within": self._spread * span}

    def config(self) -> dict[str, float]:
        """What the artefact's config gains: half the width of the answered interval, as a share of the range."""
        return {} if self._spread is None else {"spread": self._spread}
