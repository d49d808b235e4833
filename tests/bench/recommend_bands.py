"""Is the measured quality of recommendation within the printed band? `python -m tests.bench.recommend_bands`.

Worlds of the shop's law other than those the bands were fitted on, MovieLens small, and the demo shop itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from modeling.core.types import CannotTrain
from tests.bench.movielens import movielens
from tests.bench.recommend_world import World, head_model, ndcg, of_model, shop_world, split

PEOPLE = (600, 3_000, 8_000, 20_000, 45_000)
EPSILONS = (1.0, 3.0, 8.0)
ASKED = 0.9


def worlds() -> list[World]:
    return [shop_world(), shop_world(700, 0.7), shop_world(800, 0.5), shop_world(900, 0.8)]


@dataclass(frozen=True)
class Run:
    """NDCG@20 over popularity's in one world at one epsilon, and the band of its plan."""

    name: str
    units: int
    epsilon: float
    low: float
    high: float
    ratio: float
    method: str

    @property
    def is_inside(self) -> bool:
        return self.low <= self.ratio <= self.high


def run_of(world: World, train: int | None, epsilon: float) -> Run | None:
    """One run; None where the plan refuses."""
    part = split(world, seed=3, train=train, folded=3_000)
    try:
        plan, model = head_model(world, part, epsilon=epsilon, seed=int(epsilon))
    except CannotTrain:
        return None
    found = ndcg(part, of_model(model)) / part.popularity
    low, high = float(plan.settings["expected_low"]), float(plan.settings["expected_high"])
    return Run(world.name, len(part.training), epsilon, low, high, found, plan.method)


def band_runs(people: tuple[int, ...] = PEOPLE) -> Iterator[Run]:
    """Every world, size and epsilon that a plan accepts."""
    cases: list[tuple[World, int | None]] = [(world, train) for world in worlds() for train in people]
    for world, train in [*cases, (movielens(), None)]:
        for epsilon in EPSILONS:
            run = run_of(world, train, epsilon)
            if run is not None:
                yield run


def main() -> None:
    runs = []
    for run in band_runs():
        runs.append(run)
        print(
            f"{run.name:<24} {run.units:>7,} {run.epsilon:>4g} {run.method:>11} {run.ratio:>6.2f}  "
            f"{run.low:g} to {run.high:g} {'' if run.is_inside else ' outside'}"
        )
    inside = sum(run.is_inside for run in runs)
    print(f"within the band: {inside} of {len(runs)} = {inside / len(runs):.2f} (asked {ASKED})")


if __name__ == "__main__":
    main()
