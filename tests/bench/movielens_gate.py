"""MovieLens small through the gate, over popularity without privacy: `python -m tests.bench.movielens_gate`.

Some 600 people train: too few for learned taste. Mean of five splits with two noise draws each; at least .95 asked at
every epsilon, and the plan says why it fell back.
"""

from __future__ import annotations

import statistics

from tests.bench.movielens import movielens
from tests.bench.recommend_world import head_model, ndcg, of_model, split

SPLITS, DRAWS, ASKED = 5, 2, 0.95


def main() -> None:
    world = movielens()
    splits = [split(world, seed=seed) for seed in range(SPLITS)]
    print(
        f"{world.name}: {len(splits[0].training)} people train, {len(world.people) - len(splits[0].training)} fold in"
    )
    print(f"popularity without privacy: NDCG@20 {statistics.mean(one.popularity for one in splits):.4f}")
    print(f"{'epsilon':>8} {'/popularity':>12} {'asked':>6} {'lowest':>7} {'expected':>12}  method")
    said = ""
    for epsilon in (None, 8.0, 3.0, 1.0):
        found = []
        for one in splits:
            for seed in range(DRAWS if epsilon else 1):
                plan, model = head_model(world, one, epsilon=epsilon, seed=seed)
                found.append(ndcg(one, of_model(model)) / one.popularity)
        said = plan.notes[0]
        band = f"{plan.settings['expected_low']:g} to {plan.settings['expected_high']:g}"
        print(
            f"{epsilon or 'none':>8} {statistics.mean(found):>12.3f} {ASKED:>6} {min(found):>7.3f} {band:>12}  "
            f"{plan.method}"
        )
    print(f"the plan says: {said}")


if __name__ == "__main__":
    main()
