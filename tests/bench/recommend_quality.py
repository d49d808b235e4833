"""NDCG@20 of recommendation on the synthetic shop: `python -m tests.bench.recommend_quality`.

Strong generalisation (see recommend_world), exact scores, since the data are synthetic; mean of three noise draws.
Beside it popularity, implicit's ALS (tuned on a validation split of the training people) and EASE without privacy, and
DP-ALS under the same budget with constants that were tuned, as ours, on other worlds.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # implicit brings its own threads

import itertools
import statistics
import time

from tests.bench.dp_als import TUNED, dp_als
from tests.bench.recommend_world import (
    Split,
    World,
    ease,
    fold,
    head_model,
    implicit_als,
    ndcg,
    of_model,
    shop_world,
    split,
)

DRAWS = 3
ASKED = {8.0: (2.0, 0.92), 3.0: (1.9, 0.88), 1.0: (1.65, 0.75)}  # over popularity, over ALS without privacy
GRID = tuple(itertools.product((16, 24, 32, 48), (10.0, 30.0, 100.0), (10.0, 40.0, 160.0)))
PENALTIES = (200.0, 500.0, 1000.0)


def tuned_als(world: World, whole: Split) -> tuple[float, tuple[int, float, float]]:
    """NDCG of the ALS whose factors, regularisation and alpha were best on a tenth of the training people."""
    tenth = len(whole.training) // 10
    inner = fold(whole.training[tenth:], whole.training[:tenth], world.items, seed=11)

    def score(part: Split, setting: tuple[int, float, float]) -> float:
        factors, regularization, alpha = setting
        return ndcg(part, implicit_als(part, factors=factors, regularization=regularization, alpha=alpha))

    best = max(GRID, key=lambda setting: score(inner, setting))
    return score(whole, best), best


def main() -> None:
    started = time.process_time()
    world = shop_world()
    whole = split(world)
    popularity = whole.popularity
    als, setting = tuned_als(world, whole)
    closed = max(ndcg(whole, ease(whole, penalty)) for penalty in PENALTIES)
    print(f"{world.name}: {len(whole.training):,} people train, {whole.history.shape[0]:,} fold in")
    print(
        f"popularity {popularity:.4f}; ALS {als:.4f} (factors, regularisation, alpha {setting}); EASE {closed:.4f}"
    )
    print(
        f"{'epsilon':>8} {'ours':>7} {'/popularity':>12} {'asked':>6} {'/ALS':>6} {'asked':>6} {'DP-ALS':>7}  method"
    )
    for epsilon in (None, *ASKED):
        draws = DRAWS if epsilon else 1
        models = [head_model(world, whole, epsilon=epsilon, seed=seed) for seed in range(draws)]
        ours = statistics.mean(ndcg(whole, of_model(model)) for _, model in models)
        plan = models[0][0]
        rival = ""
        if epsilon:
            scores = [
                ndcg(whole, dp_als(world, whole, epsilon=epsilon, seed=seed, settings=TUNED[epsilon]))
                for seed in range(draws)
            ]
            rival = f"{statistics.mean(scores) / popularity:.2f}"
        asked = ASKED.get(epsilon, ("", "")) if epsilon else ("", "")
        print(
            f"{epsilon or 'none':>8} {ours:>7.4f} {ours / popularity:>12.2f} {asked[0]:>6} {ours / als:>6.2f} "
            f"{asked[1]:>6} {rival:>7}  {plan.method}, {plan.steps} release(s)"
        )
    print(f"(DP-ALS over popularity; {time.process_time() - started:.0f} s of CPU time)")


if __name__ == "__main__":
    main()
