"""Scores of a recommendation model: the history comes with the request, the artefact knows only items."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from modeling.core.recommend_statistics import Array64, unit
from modeling.core.types import CoreError, Tensors


@dataclass(frozen=True)
class Weights:
    """How a score mixes its parts: `taste` on (h - c)·B_i, `neighbour` on the cosine with the history."""

    taste: float
    neighbour: float


SSR_WEIGHTS = Weights(taste=0.75, neighbour=1.5)
POPULARITY_WEIGHTS = Weights(taste=0.0, neighbour=2.0)


class ItemModel:
    """A loaded artefact, ready to score n items: all in it is public or released under privacy."""

    def __init__(self, tensors: Tensors, config: Mapping[str, Any]) -> None:
        self.ids: list[str] = [str(item) for item in config["items"]]
        self.weights = SSR_WEIGHTS if config["method"] == "ssr" else POPULARITY_WEIGHTS
        self.features: Array64 = tensors["items.features"].astype(np.float64)
        self.B: Array64 = tensors["items.B"].astype(np.float64)
        self.log_p: Array64 = tensors["items.log_p"].astype(np.float64)
        self.direction: Array64 = tensors["direction"].astype(np.float64)
        self.unit_B = unit(self.B)

    @cached_property
    def index(self) -> dict[str, int]:
        return {item: number for number, item in enumerate(self.ids)}

    def known(self, items: Collection[str]) -> list[int]:
        """Numbers of the distinct items that are in the catalogue, in order; the rest are dropped."""
        return [self.index[item] for item in dict.fromkeys(items) if item in self.index]

    def score_history(self, history: Sequence[int]) -> Array64:
        """log p + .75 (h - c)·B_i + 1.5 cos(sum of the history's unit B, B_i) [n]; log p without history."""
        if not len(history):
            return self.log_p.copy()
        return self.log_p + self._taste(history)

    def score_similar(self, item: int) -> Array64:
        """How close every item [n] is to one item; popularity plays no part."""
        return self._taste([item])

    def _taste(self, history: Sequence[int]) -> Array64:
        rows = np.asarray(history, dtype=np.int64)
        h = unit(self.features[rows].sum(axis=0))
        neighbour = unit(self.unit_B[rows].sum(axis=0))
        scores: Array64 = self.weights.neighbour * (self.unit_B @ neighbour)
        if self.weights.taste:
            scores += self.weights.taste * (self.B @ (h - self.direction))
        return scores


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
