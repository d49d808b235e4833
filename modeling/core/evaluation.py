"""Held-out accuracy as a noised count: a unit adds at most 1, and every release is a charged composition."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from modeling.core import accounting, calibration
from modeling.core.noise import NoiseSource
from modeling.core.spending import Spending
from modeling.core.types import Array, Event, HeldOut, Mechanism, Plan

MECHANISM = "held_out"
CALIBRATION = "calibration"
FAIRNESS = "fairness"
# Of mu² of the held-out partition: the accuracies that are shown live, the reliability bins, the fairness report.
SHARES = {MECHANISM: 0.7, CALIBRATION: 0.15, FAIRNESS: 0.15}
RELEASES = 8  # live evaluations of a run, fixed in advance
NOISE_GOAL = 0.003  # more precise than this costs budget and tells a reader nothing
LARGEST_NOISE = 0.1  # above this the number would mislead: no live evaluation is planned
# The same for one number of a vector release; a noisier histogram would leave the public temperature as it is.
LARGEST_NOISE_OF = {CALIBRATION: 0.03, FAIRNESS: 0.1}
SMALLEST_UNITS = 20


def shares(*names: str) -> dict[str, float]:
    """How the held-out partition's mu² is divided among these mechanisms (keys of SHARES): they add up to 1.

    Full-batch Gaussian mechanisms compose by adding 1/sigma², so mechanisms made with these shares meet the job's
    epsilon together. Example: `shares(MECHANISM, CALIBRATION)`.
    """
    total = sum(SHARES[name] for name in names)
    return {name: SHARES[name] / total for name in names}


def mechanism_for(
    units: int,
    *,
    epsilon: float | None,
    delta: float,
    steps: int,
    releases: int = RELEASES,
    share: float = 1.0,
) -> Mechanism | None:
    """The held-out mechanism of a run of `steps`, or None when too few units would drown in its noise.

    Meets (epsilon, delta) on `share` of the partition's mu², and spends less where a standard error of NOISE_GOAL on
    the accuracy needs less.
    """
    if epsilon is None or units < SMALLEST_UNITS:
        return None
    releases = len(schedule(steps, releases))
    sigma = accounting.sigma_for(epsilon, delta, count=releases) / math.sqrt(share)
    if sigma / units > LARGEST_NOISE:
        return None
    return Mechanism(MECHANISM, max(sigma, NOISE_GOAL * units), 1.0, releases, partition="held_out")


def release_for(
    name: str, units: int, *, epsilon: float | None, delta: float, share: float, clip: float = 1.0
) -> Mechanism | None:
    """One vector release on the held-out units: noise sigma · clip on every number of a sum to which a unit adds a
    vector of norm at most `clip`. None without privacy, or when too few units would drown in the noise.
    """
    if epsilon is None or units < SMALLEST_UNITS:
        return None
    sigma = accounting.sigma_for(epsilon, delta, count=1) / math.sqrt(share)
    if sigma * clip / units > LARGEST_NOISE_OF[name]:
        return None
    return Mechanism(name, sigma, 1.0, 1, clip=clip, partition="held_out")


def mechanisms_for(
    units: int,
    *,
    epsilon: float | None,
    delta: float,
    steps: int,
    releases: int = RELEASES,
    beside: Sequence[str] = (CALIBRATION,),
) -> tuple[Mechanism, ...]:
    """All that a run of `steps` releases about its held-out units: live accuracies and the vectors named in `beside`.

    Together they meet (epsilon, delta); what would drown in its noise is left out and its share goes to the rest.
    """
    wanted = [MECHANISM, *beside]

    def vector(name: str) -> Mechanism | None:
        return release_for(name, units, epsilon=epsilon, delta=delta, share=shares(*wanted)[name])

    wanted = [MECHANISM, *(name for name in beside if vector(name) is not None)]
    vectors = [found for name in wanted[1:] if (found := vector(name)) is not None]
    live = mechanism_for(
        units, epsilon=epsilon, delta=delta, steps=steps, releases=releases, share=shares(*wanted)[MECHANISM]
    )
    return tuple(vectors) if live is None else (live, *vectors)


def schedule(steps: int, releases: int = RELEASES) -> list[int]:
    """After which step each release happens: evenly spread, the last one after the last step, none twice."""
    return sorted({math.ceil((index + 1) * steps / releases) for index in range(releases)})


def row_scores(logits: Array, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """How right each row is, float64 [m], in [0, 1].

    One class a row (`labels` [m]): 1 when the best class is the true one. Several labels a row (`labels` [m, K] of 0
    and 1): labels both true and assigned over labels true or assigned (Godbole & Sarawagi 2004), 1 with neither.
    """
    if labels.ndim == 1:
        return np.asarray(logits.argmax(axis=1) == labels, dtype=np.float64)
    assigned, true = logits >= 0, labels > 0
    union = (assigned | true).sum(axis=1)
    overlap = (assigned & true).sum(axis=1) / np.maximum(union, 1)
    return np.where(union > 0, overlap, 1.0).astype(np.float64)


def per_unit(
    correct: npt.NDArray[np.bool_] | npt.NDArray[np.float64], units: Sequence[int] | npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Each unit's mean score of its rows, float64 [units present], in [0, 1]: so much it adds to the count at most."""
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
    """What one run of a classifier releases about its held-out units: live accuracies, charged one by one and noised by
    the plan, and at the end the reliability of its confidences.
    """

    def __init__(
        self,
        plan: Plan,
        spending: Spending,
        labels: npt.NDArray[np.int64],
        units: npt.NDArray[np.int64],
        *,
        source: NoiseSource,
    ) -> None:
        """`labels` ([m], or [m, K] of 0 and 1) and `units` [m] of the held-out rows; `plan.settings["releases"]`
        accuracies at most.
        """
        self.stops = schedule(plan.steps, int(plan.settings["releases"]))
        self.calibration: calibration.Calibration | None = None
        self._plan = plan
        self._spending = spending
        self._labels, self._units = labels, units
        self._source = source
        self._sigmas = {item.name: item.sigma for item in plan.mechanisms}
        self._latest: HeldOut | None = None

    def run(self, step: int, logits: Callable[[], Array]) -> Iterator[Event]:
        """One charged release for the model at `step`, unless none is left, planned or new; `logits` gives [m, K]."""
        if (self._latest and self._latest.step == step) or not self._may_release(MECHANISM):
            return
        if self._is_private:
            yield self._spending.charge(MECHANISM, 1)
        shares = per_unit(row_scores(logits(), self._labels), self._units)
        total = self._plan.shape.held_out_units
        sigma = self._sigmas.get(MECHANISM, 0.0)
        self._latest = release(shares, sigma=sigma, total=total, step=step, source=self._source)
        yield self._latest

    def calibrate(self, logits: Callable[[], Array]) -> Iterator[Event]:
        """One charged release of the finished model's reliability, unless none is left or planned.

        `logits` gives [m, K] before any temperature.
        """
        if not self._may_release(CALIBRATION):
            return
        if self._is_private:
            yield self._spending.charge(CALIBRATION, 1)
        temperature = float(self._plan.settings.get("temperature", 1.0))
        scaled = np.asarray(logits() / temperature, dtype=np.float32)
        counts = calibration.histogram(*calibration.confidences(scaled, self._labels), self._units)
        sigma = self._sigmas.get(CALIBRATION, 0.0)
        if sigma:
            counts += sigma * self._source.normal(counts.size).reshape(counts.shape)
        self.calibration = calibration.fit(
            counts,
            sigma=sigma,
            total=self._plan.shape.held_out_units,
            temperature=temperature,
            classes=scaled.shape[1],
            multi_label=self._plan.recipe.multi_label,
        )

    @property
    def _is_private(self) -> bool:
        return self._plan.recipe.epsilon is not None

    def _may_release(self, name: str) -> bool:
        # With privacy also where no held-out row fits the recipe: a release left out would tell that there is none.
        return self._spending.remaining(name) > 0 if self._is_private else len(self._labels) > 0

    def metrics(self, step: int) -> dict[str, float]:
        """The released accuracy of the model at `step`, if there is one."""
        if self._latest is None or self._latest.step != step:
            return {}
        return {"accuracy": self._latest.accuracy, "accuracy_noise_error": self._latest.noise_error}

    def config(self) -> dict[str, Any]:
        """What the artefact's config gains from the calibration: the fitted temperature, and when to abstain."""
        if self.calibration is None:
            return {}
        found = {"temperature": self.calibration.temperature, "abstain_below": self.calibration.abstain_below}
        return {name: value for name, value in found.items() if value is not None}

    def report(self) -> dict[str, Any]:
        """The card's part about the calibration, or nothing."""
        return {} if self.calibration is None else {CALIBRATION: self.calibration.report()}
