"""What a recommender may be expected to reach, relative to the most popular items without privacy."""

from __future__ import annotations

import math

from modeling.core.expectations import Quality
from modeling.core.types import CannotTrain, Recipe, Shape

SMALLEST_COUNTS = 150.0  # mu·n below which even the counts are mostly noise
OF = "popularity"
# NDCG@20 over exact popularity's, by mu·n: worlds of the shop's law with 40 to 90 % of taste told by the text, none of
# them the demo shop.
_FALLBACK: tuple[tuple[float, Quality], ...] = (
    (450.0, Quality("poor", 0.4, 1.2)),
    (1_000.0, Quality("popularity", 0.85, 1.3)),
    (math.inf, Quality("popularity", 0.95, 1.35)),
)
_LEARNED: tuple[tuple[float, Quality], ...] = (
    (4_500.0, Quality("draft", 1.05, 1.5)),
    (7_000.0, Quality("draft", 1.2, 1.7)),
    (11_000.0, Quality("fair", 1.3, 1.95)),
    (20_000.0, Quality("fair", 1.45, 2.15)),
    (40_000.0, Quality("good", 1.75, 2.45)),
    (math.inf, Quality("near non-private", 2.05, 2.75)),
)
_OPEN: tuple[tuple[float, Quality], ...] = (  # the same by n, without privacy
    (3_000.0, Quality("fair", 1.2, 1.8)),
    (7_000.0, Quality("good", 1.6, 2.3)),
    (12_000.0, Quality("good", 2.0, 2.6)),
    (math.inf, Quality("without privacy", 2.2, 3.0)),
)


def band(recipe: Recipe, method: str, signal: float) -> Quality:
    """The expected band; `signal` is mu·n, or n without privacy."""
    if method == "ssr":
        return next(
            found for limit, found in (_OPEN if recipe.epsilon is None else _LEARNED) if signal < limit
        )
    if recipe.epsilon is None:
        return _FALLBACK[-1][1]
    return next(found for limit, found in _FALLBACK if signal < limit)


def check(recipe: Recipe, shape: Shape, signal: float) -> None:
    """Refuse what would be noise: raises CannotTrain, saying what would be enough."""
    if recipe.epsilon is None or signal >= SMALLEST_COUNTS:
        return
    needed = math.ceil(shape.train_units * SMALLEST_COUNTS / signal)
    raise CannotTrain(
        f"With {shape.train_units:,} people at epsilon {recipe.epsilon:g} do not bother: the counts of items would be "
        f"mostly noise. Bring about {needed:,} people, or choose a larger epsilon.",
        code="too_few_units",
    )


def notes(recipe: Recipe, shape: Shape, method: str, expected: Quality) -> tuple[str, ...]:
    """Why this method, and what to expect, in plain sentences."""
    said = []
    if method == "popularity":
        privacy = "" if recipe.epsilon is None else f" at epsilon {recipe.epsilon:g}"
        private = "" if recipe.epsilon is None else "private "
        said.append(
            f"With {shape.train_units:,} people{privacy} a {private}model cannot learn personal taste; "
            f"you get {private}popularity and catalogue similarity."
        )
    said.append(
        f"Expected quality: {expected.name}, about {expected.low:g} to {expected.high:g} times what a list of the most "
        "popular items reaches (measured on synthetic shops; less where people want the same things)."
    )
    return tuple(said)
