"""Scores of a recommendation model: the history comes with the request, the artefact knows only items."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from modeling.core.recommend_statistics import Array64, Indices, unit
from modeling.core.types import CoreError, Tensors

HISTORY = "history"  # what an answer rests on: the person's own items,
POPULAR = "popular"  # everybody's, without any item that the catalogue knows,
SIMILAR = "similar"  # or the one item that others should be like


@dataclass(frozen=True)
class Part:
    """One term of a score: taste · (h - direction)·B_i + neighbour · unit(Σ x_j)·x_i over the history's items j.

    h is the unit sum of the history's `features` [n, d], x = `vectors` B [n, d] / `lengths` [n].
    """

    features: Array64
    vectors: Array64
    soft: Array64
    direction: Array64
    taste: float
    neighbour: float

    def scores(self, rows: Indices) -> Array64:
        """The term for all items [n], from the numbers of a history."""
        found: Array64 = self.neighbour * (self.soft @ unit(self.soft[rows].sum(axis=0)))
        if self.taste:
            found += self.taste * (self.vectors @ (unit(self.features[rows].sum(axis=0)) - self.direction))
        return found


_ONE_ROUND: Mapping[str, Any] = {
    "features": "items.features",
    "vectors": "items.B",
    "direction": "direction",
    "taste": 0.75,
    "neighbour": 1.5,
}


def _part(tensors: Tensors, written: Mapping[str, Any]) -> Part:
    vectors = tensors[written["vectors"]].astype(np.float64)
    soft = unit(vectors)
    if "lengths" in written:
        soft = vectors / tensors[written["lengths"]].astype(np.float64)[:, None]
    features, direction = (tensors[written[name]].astype(np.float64) for name in ("features", "direction"))
    return Part(features, vectors, soft, direction, float(written["taste"]), float(written["neighbour"]))


class ItemModel:
    """A loaded artefact, ready to score n items: all in it is public or released under privacy.

    `config["parts"]` names the tensors and the weights of each part; artefacts of the first format have one.
    """

    def __init__(self, tensors: Tensors, config: Mapping[str, Any]) -> None:
        self.ids: list[str] = [str(item) for item in config["items"]]
        self.log_p: Array64 = tensors["items.log_p"].astype(np.float64)
        written = config.get("parts", [_ONE_ROUND])
        self.parts = [_part(tensors, one) for one in written if one["taste"] or one["neighbour"]]

    @cached_property
    def index(self) -> dict[str, int]:
        return {item: number for number, item in enumerate(self.ids)}

    def known(self, items: Collection[str]) -> list[int]:
        """Numbers of the distinct items that are in the catalogue, in order; the rest are dropped."""
        return [self.index[item] for item in dict.fromkeys(items) if item in self.index]

    def basis(self, history: Collection[str]) -> str:
        """What a list for this history rests on: HISTORY, or POPULAR where the catalogue knows none of it."""
        return HISTORY if self.parts and any(item in self.index for item in history) else POPULAR

    def score_history(self, history: Sequence[int]) -> Array64:
        """log p plus the parts' terms [n]; log p without history."""
        scores = self.log_p.copy()
        return scores + self._taste(history) if len(history) else scores

    def score_similar(self, item: int) -> Array64:
        """How close every item [n] is to one item; popularity plays no part."""
        return self._taste([item])

    def _taste(self, history: Sequence[int]) -> Array64:
        rows = np.asarray(history, dtype=np.int64)
        total = np.zeros(len(self.ids))
        for part in self.parts:
            total += part.scores(rows)
        return total


def recommend_scores(
    model: ItemModel,
    *,
    history: Sequence[str] = (),
    similar_to: str | None = None,
    exclude: Collection[str] = (),
    k: int = 20,
) -> list[tuple[str, float]]:
    """The k best (item id, score), best first, without the history, `similar_to` and `exclude`.

    A person without history gets popularity. Items outside the catalogue are dropped; an unknown
    `similar_to` raises CoreError.
    """
    past = model.known(history)
    if similar_to is None:
        scores = model.score_history(past)
    elif similar_to in model.index:
        scores = model.score_similar(model.index[similar_to])
    else:
        raise CoreError(f"The item {similar_to!r} is not in this model's catalogue.", code="unknown_item")
    seeds = [] if similar_to is None else [similar_to]
    scores[[*past, *model.known([*exclude, *seeds])]] = -np.inf
    return [(model.ids[number], float(scores[number])) for number in best(scores, k)]


def best(scores: Array64, k: int) -> list[int]:
    """Numbers of the k highest finite scores, best first; ties go to the earlier item."""
    k = max(0, min(k, int(np.isfinite(scores).sum())))
    order = np.argsort(-scores, kind="stable")[:k]
    return [int(number) for number in order]
