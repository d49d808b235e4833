"""Is the measured quality of recommendation within the printed band? `python -m tests.bench.recommend_bands`.

Worlds of the shop's law other than those the bands were fitted on, MovieLens small, and the demo shop itself.
"""

from __future__ import annotations

from modeling.core.types import CannotTrain
from tests.bench.movielens import movielens
from tests.bench.recommend_world import World, head_model, ndcg, of_model, shop_world, split

PEOPLE = (600, 3_000, 8_000, 20_000, 45_000)
EPSILONS = (1.0, 3.0, 8.0)
ASKED = 0.9


def worlds() -> list[World]:
    return [shop_world(), shop_world(700, 0.7), shop_world(800, 0.5), shop_world(900, 0.8)]


def inside(world: World, train: int | None, epsilon: float) -> bool | None:
    """Whether one run's NDCG@20 over popularity is in the plan's band; None where the plan refuses."""
    part = split(world, seed=3, train=train, folded=3_000)
    try:
        plan, model = head_model(world, part, epsilon=epsilon, seed=int(epsilon))
    except CannotTrain as refusal:
        print(f"{world.name:<24} {len(part.training):>7,} {epsilon:>4g}  refused: {refusal.message}")
        return None
    found = ndcg(part, of_model(model)) / part.popularity
    low, high = float(plan.settings["expected_low"]), float(plan.settings["expected_high"])
    is_inside = low <= found <= high
    print(
        f"{world.name:<24} {len(part.training):>7,} {epsilon:>4g} {plan.method:>11} {found:>6.2f}  "
        f"{low:g} to {high:g} {'' if is_inside else ' outside'}"
    )
    return is_inside


def main() -> None:
    found = [inside(world, train, epsilon) for world in worlds() for train in PEOPLE for epsilon in EPSILONS]
    films = movielens()
    found += [inside(films, None, epsilon) for epsilon in EPSILONS]
    run = [one for one in found if one is not None]
    print(f"within the band: {sum(run)} of {len(run)} = {sum(run) / len(run):.2f} (asked {ASKED})")


if __name__ == "__main__":
    main()
