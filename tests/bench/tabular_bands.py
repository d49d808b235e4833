"""Is the measured quality of table models within the printed band? `python -m tests.bench.tabular_bands`.

AUROC over the same model's without privacy, means over splits, on the six tables of `tabular_quality`, on none of
which the model's constants were chosen. The band is the plan's own; where it refuses to train, there is no run.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

from modeling.core import planning
from modeling.core.types import CannotTrain, Recipe, Shape
from tests.bench.tables import Table, load_tables
from tests.bench.tabular_quality import EPSILONS, SEEDS, mean_over, ours, splits_of


@dataclass(frozen=True)
class Run:
    """One table at one epsilon: what was printed and what was measured."""

    name: str
    units: int
    epsilon: float
    low: float
    high: float
    ratio: float

    @property
    def is_inside(self) -> bool:
        """To the third decimal, as it is measured."""
        return self.low - 5e-4 <= self.ratio <= self.high + 5e-4


def printed(table: Table, epsilon: float) -> tuple[float, float] | None:
    """The band of the plan that a job on 80 % of the rows would get; None where it is refused."""
    train = int(0.8 * len(table.labels))
    recipe = Recipe(
        "classification", "tabular", labels=("no", "yes"), epsilon=epsilon, features=table.features
    )
    try:
        plan = planning.plan(
            recipe, Shape(train, len(table.labels) - train, len(table.labels), classes=2), "cpu"
        )
    except CannotTrain:
        return None
    return float(plan.settings["expected_low"]), float(plan.settings["expected_high"])


def band_runs(seeds: int = SEEDS) -> Iterator[Run]:
    """One run a table and epsilon."""
    for table in load_tables():
        splits = splits_of(table, seeds)
        open_ = mean_over(table, splits, lambda a, b, t=table: ours(t, a, b, epsilon=None))  # type: ignore[misc]
        for epsilon in EPSILONS:
            band = printed(table, epsilon)
            if band is None:
                continue
            found = mean_over(table, splits, lambda a, b, e=epsilon, t=table: ours(t, a, b, epsilon=e))  # type: ignore[misc]
            yield Run(table.name, int(0.8 * len(table.labels)), epsilon, *band, found / open_)


def main(seeds: int) -> None:
    """Print every run and the share inside."""
    runs = list(band_runs(seeds))
    for run in runs:
        print(f"{run.name:<16}{run.units:>6}{run.epsilon:>4g}  {run.low:.3f} to {run.high:.3f}  {run.ratio:.3f}"
              f"{'' if run.is_inside else '  outside'}")  # fmt: skip
    print(f"within the band: {sum(run.is_inside for run in runs)} of {len(runs)} (asked 90 %)")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else SEEDS)
