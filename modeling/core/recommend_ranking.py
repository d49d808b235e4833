"""A list of items: scores, what may be shown, and how different the items should be from each other. Exact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from modeling.core.recommend_columns import Columns, Filter, Mask
from modeling.core.recommend_scores import SIMILAR, ItemModel, best, scored
from modeling.core.recommend_statistics import unit
from modeling.core.types import Array

_POOL_FEWEST, _POOL_A_PLACE, _POOL_MOST = 200, 5, 2_000  # items among which a diverse list is chosen


@dataclass(frozen=True)
class Wish:
    """What is asked of a recommender; items are ids, `candidates` None for the whole catalogue.

    `kept` and `dropped` are filters over the catalogue's columns: an item must match all of the one and none of the
    other. `diversity` 0…1 takes from the score of an item what it has in common with those above it.
    """

    history: Sequence[str] = ()
    similar_to: str | None = None
    exclude: Sequence[str] = ()
    candidates: Sequence[str] | None = None
    kept: Filter = field(default_factory=dict)
    dropped: Filter = field(default_factory=dict)
    diversity: float = 0.0
    k: int = 20


@dataclass(frozen=True)
class Ranked:
    """Item ids with their scores, best first; `unknown` counts by field the ids that the catalogue does not have."""

    items: list[tuple[str, float]]
    basis: str
    unknown: Mapping[str, int]


def rank(model: ItemModel, columns: Columns, looks: Array | None, wish: Wish) -> Ranked:
    """The best of what may be shown; raises CoreError `unknown_item`, `unknown_column`, `bad_filter`.

    `looks` [n, d] are public vectors of the items by which they resemble each other.
    """
    scores, past = scored(model, history=wish.history, similar_to=wish.similar_to)
    scores[[*past, *model.known(wish.exclude)]] = -np.inf
    allowed = _allowed(model, columns, wish)
    if allowed is not None:
        np.copyto(scores, -np.inf, where=~allowed)
    if wish.diversity and looks is not None:
        pool = best(scores, min(_POOL_MOST, max(_POOL_FEWEST, _POOL_A_PLACE * wish.k)))
        chosen = spread(scores[pool], looks[pool], wish.diversity, wish.k)
        order = [pool[place] for place in chosen]
    else:
        order = best(scores, wish.k)
    basis = model.basis(wish.history) if wish.similar_to is None else SIMILAR
    return Ranked(
        [(model.ids[number], float(scores[number])) for number in order], basis, _unknown(model, wish)
    )


def _allowed(model: ItemModel, columns: Columns, wish: Wish) -> Mask | None:
    """The items that candidates and filters leave; None for all."""
    allowed: Mask | None = None
    if wish.kept or wish.dropped:
        allowed = columns.kept(wish.kept) & ~columns.dropped(wish.dropped)
    if wish.candidates is not None:
        named = np.zeros(len(model.ids), dtype=bool)
        named[model.known(wish.candidates)] = True
        allowed = named if allowed is None else allowed & named
    return allowed


def _unknown(model: ItemModel, wish: Wish) -> dict[str, int]:
    given = {"history": wish.history, "candidates": wish.candidates or (), "exclude": wish.exclude}
    counts = {
        name: sum(item not in model.index for item in dict.fromkeys(items)) for name, items in given.items()
    }
    return {name: count for name, count in counts.items() if count}


def spread(scores: Array, looks: Array, diversity: float, k: int) -> list[int]:
    """Places of k of the items [m] (best first): each the best by (1 - diversity)·score - diversity·likeness.

    Scores are stretched to 0…1; the likeness is the highest cosine, at least 0, with an item chosen before. The first
    is the best by score; ties go to the earlier place.
    """
    if not len(scores):
        return []
    low, high = float(scores.min()), float(scores.max())
    worth = (scores.astype(np.float64) - low) / (high - low) if high > low else np.zeros(len(scores))
    rows = unit(looks)
    likeness = np.zeros(len(scores))
    free = np.ones(len(scores), dtype=bool)
    chosen = [0]
    while len(chosen) < min(k, len(scores)):
        free[chosen[-1]] = False
        np.maximum(likeness, rows @ rows[chosen[-1]], out=likeness)
        value = np.where(free, (1.0 - diversity) * worth - diversity * likeness, -np.inf)
        chosen.append(int(value.argmax()))
    return chosen[:k]
