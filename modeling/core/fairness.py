"""How well a model treats each group of a protected attribute: one noised vector of counts over held-out people."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from modeling.core.evaluation import FAIRNESS
from modeling.core.noise import NoiseSource
from modeling.core.spending import Spending
from modeling.core.types import Array, Event, Feature, Mechanism, Plan

SMALLEST_GROUP = 50.0  # people by the noised count; below it a share says little even without noise
LARGEST_NOISE = 0.05  # of a group's accuracy: above it the group is called small, whatever its count

Floats = npt.NDArray[np.float64]


def sensitivity(attributes: int) -> float:
    """The norm of what one unit adds to the vector: at most 1 for each attribute, so sqrt(attributes) in all."""
    return math.sqrt(attributes)


def with_sensitivity(mechanisms: Sequence[Mechanism], attributes: int) -> tuple[Mechanism, ...]:
    """The same mechanisms, the fairness release with its sensitivity as its clip."""
    return tuple(
        replace(item, clip=sensitivity(attributes)) if item.name == FAIRNESS else item for item in mechanisms
    )


def class_outcomes(
    predicted: npt.NDArray[np.int64], labels: npt.NDArray[np.int64], *, classes: int
) -> Floats:
    """One-hot outcomes [m, c]: with two classes 2·true + predicted, otherwise wrong or right."""
    cell = 2 * labels + predicted if classes == 2 else (predicted == labels).astype(np.int64)
    return np.asarray(np.eye(4 if classes == 2 else 2)[cell], dtype=np.float64)


def error_outcomes(errors: Floats) -> Floats:
    """Outcomes [m, 2] of a regression: (e, 1 − e) for errors in [0, 1] of the declared range; norm at most 1."""
    inside = np.clip(errors, 0.0, 1.0)
    return np.stack([inside, 1 - inside], axis=1)


def counts(
    outcomes: Floats,
    groups: Mapping[str, npt.NDArray[np.int64]],
    attributes: Sequence[Feature],
    units: npt.NDArray[np.int64],
) -> list[Floats]:
    """For each attribute, the sum over units of the unit's mean outcome in each group: [groups, c].

    A row lies in one group, so the mean over a unit's rows has norm at most 1; rows without the attribute add nothing.
    """
    _, index, sizes = np.unique(units, return_inverse=True, return_counts=True)
    weighted = outcomes / sizes[index][:, None] if len(units) else outcomes
    found = []
    for attribute in attributes:
        group = groups[attribute.name]
        total = np.zeros((len(attribute.categories), outcomes.shape[1]))
        known = group >= 0
        np.add.at(total, group[known], weighted[known])
        found.append(total)
    return found


class Fairness:
    """The fairness report of one run: charged once, for the finished model."""

    def __init__(
        self,
        plan: Plan,
        spending: Spending,
        groups: Mapping[str, npt.NDArray[np.int64]],
        units: npt.NDArray[np.int64],
        *,
        source: NoiseSource,
    ) -> None:
        """`groups` by protected attribute and `units`, [m] each, of the held-out rows."""
        self._attributes = plan.recipe.protected
        self._groups, self._units = groups, units
        self._spending, self._source = spending, source
        self._is_private = plan.recipe.epsilon is not None
        self._mechanism = next((item for item in plan.mechanisms if item.name == FAIRNESS), None)
        self._labels = plan.recipe.labels
        self._target = plan.recipe.target
        self._report: list[dict[str, Any]] = []

    def run(self, outcomes: Callable[[], Floats]) -> Iterator[Event]:
        """The one charged release; `outcomes` [m, c] of the held-out rows, as the functions above give them."""
        if not self._attributes:
            return
        # With privacy also where no held-out row fits the recipe: a report left out would tell that there is none.
        if not (self._spending.remaining(FAIRNESS) if self._is_private else len(self._units)):
            return
        if self._is_private:
            yield self._spending.charge(FAIRNESS, 1)
        noise = self._mechanism.sigma * self._mechanism.clip if self._mechanism else 0.0
        found = counts(outcomes(), self._groups, self._attributes, self._units)
        for attribute, exact in zip(self._attributes, found, strict=True):
            noised = exact + (noise * self._source.normal(exact.size).reshape(exact.shape) if noise else 0.0)
            self._report.append(self._entry(attribute, noised, noise))

    def report(self) -> dict[str, Any]:
        """The card's part, or nothing."""
        return {"fairness": self._report} if self._report else {}

    def _entry(self, attribute: Feature, noised: Floats, noise: float) -> dict[str, Any]:
        tell = self._told_errors if self._target else self._told_classes
        groups = [
            {"group": name, **tell(row, noise)}
            for name, row in zip(attribute.categories, noised, strict=True)
        ]
        entry: dict[str, Any] = {"attribute": attribute.name, "groups": groups}
        entry["gap"] = _gap(groups, "accuracy")
        if not self._target and len(self._labels) == 2:
            entry["positive"] = self._labels[1]
            entry["positive_rate_gap"] = _gap(groups, "positive_rate")
            entry["true_positive_rate_gap"] = _gap(groups, "true_positive_rate")
        return entry

    def _told_classes(self, cells: Floats, noise: float) -> dict[str, Any]:
        """A group's figures from its noised cells: 2·true + predicted, or wrong and right."""
        if len(cells) == 2:
            return _told(cells[1], cells[0], noise)
        told = _told(cells[0] + cells[3], cells[1] + cells[2], noise * math.sqrt(2))
        people = max(float(cells.sum()), 1.0)
        positives = max(float(cells[2] + cells[3]), 1.0)
        told["positive_rate"] = _share(float(cells[1] + cells[3]) / people)
        told["true_positive_rate"] = _share(float(cells[3]) / positives)
        return told

    def _told_errors(self, cells: Floats, noise: float) -> dict[str, Any]:
        """The same for a regression: accuracy is one minus the mean error as a share of the declared range."""
        told = _told(cells[1], cells[0], noise)
        assert self._target is not None  # only then is this called
        span = self._target.high - self._target.low
        return told | {"mean_absolute_error": (1 - told["accuracy"]) * span}


def _told(right: Array | float, wrong: Array | float, noise: float) -> dict[str, Any]:
    """Accuracy right/(right + wrong) of two noised sums; its error by the delta method from released numbers alone."""
    people = max(float(right) + float(wrong), 1.0)
    accuracy = _share(float(right) / people)
    error = noise * math.hypot(accuracy, 1 - accuracy) / people
    return {
        "people": max(round(float(right) + float(wrong)), 0),
        "accuracy": accuracy,
        "noise_error": round(min(error, 1.0), 4),
        "is_small": people < SMALLEST_GROUP or error > LARGEST_NOISE,
    }


def _share(value: float) -> float:
    return round(min(max(value, 0.0), 1.0), 4)


def _gap(groups: Sequence[Mapping[str, Any]], figure: str) -> float | None:
    """The largest difference between groups that are not small; None when fewer than two are left."""
    values = [float(one[figure]) for one in groups if not one["is_small"]]
    return round(max(values) - min(values), 4) if len(values) > 1 else None
