"""Scores of a recommendation model: the history comes with the request, the artefact knows only items."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from modeling.core.recommend_statistics import Array64, Indices, unit
from modeling.core.types import Array, CoreError, Tensors

HISTORY = "history"  # what an answer rests on: the person's own items,
POPULAR = "popular"  # everybody's, without any item that the catalogue knows,
SIMILAR = "similar"  # or the one item that others should be like


@dataclass(frozen=True)
class Part:
    """One term of a score: taste · (h - direction)·B_i + neighbour · unit(Σ x_j)·x_i over the history's items j.

    h is the unit sum of the history's `features` [n, d], x = `vectors` B [n, d] times `scale` [n]. All are float32 and
    used where they lie; a history's own sums are made in float64.
    """

    features: Array
    vectors: Array
    scale: Array
    direction: Array
    taste: float
    neighbour: float

    def soft(self, rows: Indices) -> Array64:
        """The x of some items [rows, d]."""
        found: Array64 = self.vectors[rows].astype(np.float64) * self.scale[rows, None]
        return found

    def scores(self, rows: Indices) -> Array:
        """The term for all items [n], from the numbers of a history."""
        near = self.neighbour * unit(self.soft(rows).sum(axis=0))
        if not self.taste:
            found: Array = (self.vectors @ near.astype(np.float32)) * self.scale
        else:
            wanted = unit(self.features[rows].sum(axis=0, dtype=np.float64)) - self.direction
            both = self.vectors @ np.stack([near, self.taste * wanted], axis=1).astype(
                np.float32
            )  # one pass for two
            found = both[:, 0] * self.scale + both[:, 1]
        return found


_ONE_ROUND: Mapping[str, Any] = {
    "features": "items.features",
    "vectors": "items.B",
    "direction": "direction",
    "taste": 0.75,
    "neighbour": 1.5,
}


def _part(tensors: Tensors, written: Mapping[str, Any]) -> Part:
    vectors = tensors[written["vectors"]].astype(np.float32, copy=False)
    lengths = tensors[written["lengths"]] if "lengths" in written else np.linalg.norm(vectors, axis=1)
    scale = np.divide(1.0, lengths, out=np.zeros(len(vectors)), where=lengths > 0).astype(np.float32)
    features, direction = (
        tensors[written[name]].astype(np.float32, copy=False) for name in ("features", "direction")
    )
    return Part(features, vectors, scale, direction, float(written["taste"]), float(written["neighbour"]))


class ItemModel:
    """A loaded artefact, ready to score n items: all in it is public or released under privacy.

    `config["parts"]` names the tensors and the weights of each part; artefacts of the first format have one.
    """

    def __init__(self, tensors: Tensors, config: Mapping[str, Any]) -> None:
        self.ids: list[str] = [str(item) for item in config["items"]]
        self.log_p: Array = tensors["items.log_p"].astype(np.float32, copy=False)
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

    def score_history(self, history: Sequence[int]) -> Array:
        """log p plus the parts' terms [n], float32; log p without history."""
        return self.log_p + self._taste(history) if len(history) else self.log_p.copy()

    def score_similar(self, item: int) -> Array:
        """How close every item [n] is to one item; popularity plays no part."""
        return self._taste([item])

    def _taste(self, history: Sequence[int]) -> Array:
        rows = np.asarray(history, dtype=np.int64)
        total = np.zeros(len(self.ids), dtype=np.float32)
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
    scores, past = scored(model, history=history, similar_to=similar_to)
    scores[[*past, *model.known(exclude)]] = -np.inf
    return [(model.ids[number], float(scores[number])) for number in best(scores, k)]


def scored(
    model: ItemModel, *, history: Sequence[str] = (), similar_to: str | None = None
) -> tuple[Array, list[int]]:
    """The scores of all items [n], and the numbers of the items asked about, which no answer repeats.

    An unknown `similar_to` raises CoreError.
    """
    past = model.known(history)
    if similar_to is None:
        return model.score_history(past), past
    if similar_to not in model.index:
        raise CoreError(f"The item {similar_to!r} is not in this model's catalogue.", code="unknown_item")
    number = model.index[similar_to]
    return model.score_similar(number), [*past, number]


def best(scores: Array, k: int) -> list[int]:
    """Numbers of the k highest scores above -inf, best first; ties go to the earlier item. Exact."""
    alive = scores > -np.inf
    left = int(np.count_nonzero(alive))
    numbers: Indices | None = None
    if left < 0.9 * len(scores):  # partition is slow among many equal scores
        numbers = np.flatnonzero(alive)
        scores = scores[numbers]
    k = min(k, left)
    if k <= 0:
        return []
    edge = np.partition(scores, len(scores) - k)[len(scores) - k]
    places = np.flatnonzero(scores >= edge)
    places = places[np.argsort(-scores[places], kind="stable")[:k]]
    return [int(number) for number in (places if numbers is None else numbers[places])]
