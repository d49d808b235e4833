"""How often the printed quality band of a text job holds the measured figure, on sets that it was not fitted on.

A run is a data set, a number of people and an epsilon: the private head's exact held-out accuracy over the accuracy of
the same code without privacy, on the same rows. The band's constants come from ICD-10-CM alone; here are seven other
sets, and ICD chapters with split seeds of their own.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from modeling.core import planning
from modeling.core.heads.classify import fit
from modeling.core.heads.classify_rows import Rows
from modeling.core.predictor import classify_logits
from modeling.core.types import CannotTrain, Plan, Recipe, Shape, Trained
from tests.bench import text_rows
from tests.bench.text_rows import TextSet

ASKED = 0.9
EPSILONS = (1.0, 3.0, 8.0)
SIZES = (350, 1_500, 6_000)
CLINIC_SIZES = (600, 2_500)
HELD_OUT = 4_000


@dataclass(frozen=True)
class Run:
    """One printed band and what was measured."""

    name: str
    units: int
    epsilon: float
    rho: float
    low: float
    high: float
    private: float
    without: float

    @property
    def ratio(self) -> float:
        """The measured figure: accuracy relative to no privacy."""
        return self.private / self.without

    @property
    def is_inside(self) -> bool:
        """Whether the band held it."""
        return self.low <= self.ratio <= self.high


def runs_of(data: TextSet, sizes: tuple[int, ...], *, seed: int) -> Iterator[Run]:
    """All runs of one data set whose jobs are not refused."""
    for units in sizes:
        if units > 0.8 * len(data.labels):
            continue
        train, held_out = split(data, units, seed=seed)
        without: float | None = None
        for epsilon in EPSILONS:
            try:
                plan = planning.plan(_recipe(data, epsilon), _shape(data, units))
            except CannotTrain:
                continue
            if without is None:
                open_plan = planning.plan(_recipe(data, None), _shape(data, units))
                without = _accuracy(open_plan, data, train, held_out)
            low, high = (float(plan.settings[f"expected_{end}"]) for end in ("low", "high"))
            private = _accuracy(plan, data, train, held_out)
            yield Run(data.name, units, epsilon, float(plan.settings["rho"]), low, high, private, without)


def _recipe(data: TextSet, epsilon: float | None) -> Recipe:
    reason = "bench" if epsilon is None else ""
    return Recipe(
        "classification", "minilm-l6", "head", labels=data.names, epsilon=epsilon, privacy_off_reason=reason
    )


def _shape(data: TextSet, units: int) -> Shape:
    return Shape(units, units // 4, units + units // 4, classes=len(data.names))


def split(data: TextSet, units: int, *, seed: int) -> tuple[Rows, Rows]:
    """(train, held out): `units` rows of four fifths, and at most HELD_OUT of the rest, each its own person."""
    order = np.random.default_rng(seed).permutation(len(data.labels))
    border = int(0.8 * len(order))
    parts = (order[:border][:units], order[border:][:HELD_OUT])
    train, held_out = (
        Rows([], data.labels[part], np.arange(len(part)), data.features[part]) for part in parts
    )
    return train, held_out


def _accuracy(plan: Plan, data: TextSet, train: Rows, held_out: Rows) -> float:
    """Exact accuracy on held-out rows, which only public data allow."""
    events = fit(plan, train, held_out.none(), data.name_features)
    trained = next(event for event in events if isinstance(event, Trained))
    predicted = classify_logits(trained.tensors, trained.config, held_out.features).argmax(axis=1)
    return float((predicted == held_out.labels).mean())


def main() -> None:
    started = time.process_time()
    runs = list(runs_of(text_rows.clinic(), CLINIC_SIZES, seed=501))
    for number, name in enumerate(text_rows.OTHERS):
        runs += runs_of(text_rows.load(name), SIZES, seed=number)
    print(f"{'data':>13} {'people':>7} {'epsilon':>8} {'rho':>6}  {'band':>11}  measured  private  without")
    for run in runs:
        print(
            f"{run.name:>13} {run.units:>7,} {run.epsilon:>8g} {run.rho:>6.0f}  {run.low:>5.2f}–{run.high:.2f}  "
            f"{run.ratio:>8.3f}  {run.private:>7.3f}  {run.without:>7.3f}  {'' if run.is_inside else 'outside'}"
        )
    share = sum(run.is_inside for run in runs) / len(runs)
    print(f"{len(runs)} runs, {share:.1%} inside the printed band (asked {ASKED:.0%})")
    print(f"{time.process_time() - started:.0f} s of CPU time")


if __name__ == "__main__":
    sys.exit(main())
