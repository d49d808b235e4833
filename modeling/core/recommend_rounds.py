"""SSR in rounds: statistics over the catalogue's features, then over the item vectors learned from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from modeling.core.recommend_solution import Learned, floored, learn, log_share, next_features
from modeling.core.recommend_statistics import (
    ASKED_WIDTH,
    LEARNED_WIDTH,
    POPULARITY_SHARES,
    SECOND_SHARES,
    SSR_SHARES,
    Array64,
    Indices,
    asked_features,
    collect,
    stack,
    unstack,
)
from modeling.core.types import Array, Tensors

# Tuned on synthetic worlds other than the demo shop.
_NEIGHBOUR = 4.0
_CATALOGUE = 2.0  # weight of the catalogue's own similarity where nothing is learned


@dataclass
class Rounds:
    """The noised releases so far, and what follows from them without touching anybody's data again.

    `sigma` is the noise of each release's stacked vector, whose sensitivity is 1; 0 without privacy.
    """

    method: str  # ssr | popularity
    features: Array
    sigma: float
    width: int = ASKED_WIDTH  # directions of the catalogue in which the first release asks
    asked: list[Array] = field(default_factory=list)  # what each release was or will be asked in
    released: list[Array64] = field(default_factory=list)
    learned: list[Learned] = field(default_factory=list)

    @property
    def shares(self) -> Mapping[str, float]:
        """Budget shares of the next release's parts."""
        if self.method != "ssr":
            return POPULARITY_SHARES
        return SECOND_SHARES if self.released else SSR_SHARES

    @property
    def asked_in(self) -> Array:
        """The features [n, d] of the next release: from the catalogue's, then the learned ones."""
        if len(self.asked) == len(self.released):
            self.asked.append(self._next_asked())
        return self.asked[len(self.released)]

    def _next_asked(self) -> Array:
        if self.method != "ssr":
            return self.features
        return (
            next_features(self.learned[-1], LEARNED_WIDTH)
            if self.learned
            else asked_features(self.features, self.width)
        )

    def state(self) -> Tensors:
        """The releases, and the directions of the second: another machine might find them with other signs."""
        stored: Tensors = {f"released.{number}": found for number, found in enumerate(self.released)}
        return stored | {f"asked.{number}": self.asked[number] for number in range(1, len(self.released))}

    def restore(self, stored: Tensors) -> None:
        """Take the releases of a stored state."""
        while (name := f"released.{len(self.released)}") in stored:
            if self.released:
                self.asked.append(stored[f"asked.{len(self.released)}"].astype(np.float32))
            self.take(stored[name].astype(np.float64))

    def exact(self, sets: Sequence[Indices]) -> Array64:
        """The next release before its noise, of sensitivity 1: private."""
        return stack(collect(sets, self.asked_in), self.shares)

    def release(self, sets: Sequence[Indices], normal: Callable[[int], Array64]) -> Array64:
        """The next release, charged by the caller before: `normal(count)` draws standard normal noise."""
        vector = self.exact(sets)
        return vector + self.sigma * normal(vector.size) if self.sigma else vector

    def take(self, released: Array64) -> None:
        """Learn from one more release."""
        shares, asked_in = self.shares, self.asked_in
        noised = unstack(released, shares, *asked_in.shape)
        self.released.append(released)
        if self.method == "ssr":
            self.learned.append(learn(noised, asked_in, self.sigma, shares, floored(*self.counts())))

    def counts(self) -> tuple[Array64, float]:
        """The mean of the releases' popularity counts [n], and its noise."""
        shares = [POPULARITY_SHARES] if self.method != "ssr" else [SSR_SHARES, SECOND_SHARES]
        found = [
            _popularity(released, share, len(self.features))
            for released, share in zip(self.released, shares, strict=False)
        ]
        spread = np.mean([1.0 / share["popularity"] for share in shares[: len(found)]])
        return np.mean(found, axis=0), self.sigma * float(np.sqrt(spread / len(found)))

    def artifact(self) -> tuple[Tensors, list[dict[str, Any]]]:
        """The model's tensors, and the parts that a score adds up (see recommend_scores)."""
        tensors: Tensors = {
            "items.features": self.features,
            "items.log_p": log_share(*self.counts()),
            "direction": np.zeros(self.features.shape[1], dtype=np.float32),
        }
        catalogue = {"features": "items.features", "vectors": "items.features", "direction": "direction"}
        taste, neighbour, similar = weights([found.certainty for found in self.learned])
        parts: list[dict[str, Any]] = [catalogue | {"taste": 0.0, "neighbour": similar}]
        for number, found in enumerate(self.learned):
            names = {
                name: f"round{number}.{name}" for name in ("features", "vectors", "direction", "lengths")
            }
            tensors |= {name: getattr(found, key).astype(np.float32) for key, name in names.items()}
            parts.append(names | {"taste": taste[number], "neighbour": neighbour[number]})
        return tensors, [part for part in parts if part["taste"] or part["neighbour"]]


def _popularity(released: Array64, shares: Mapping[str, float], items: int) -> Array64:
    """The counts, which every release has first."""
    found: Array64 = released[:items] / np.sqrt(shares["popularity"])
    return found


def weights(certainty: Sequence[float]) -> tuple[list[float], list[float], float]:
    """(taste a round, neighbour a round, catalogue similarity), by how certain each round's item vectors are.

    The last round speaks alone where it is certain; where it is not, half of the weight stays with the round before.
    """
    if not certainty:
        return [], [], _CATALOGUE
    last = certainty[-1]
    earlier = float(np.clip(0.75 - 1.5 * last, 0.0, 0.5)) if len(certainty) > 1 else 0.0
    split = [earlier, 1.0 - earlier] if len(certainty) > 1 else [1.0]
    taste = float(np.clip(0.75 - 0.75 * last, 0.25, 0.5))
    neighbour = _NEIGHBOUR * float(np.clip((last - 0.05) / 0.35, 0.25, 1.0))
    similar = float(np.clip((0.4 - last) / 0.2, 0.0, 1.0))
    return [taste * share for share in split], [neighbour * share for share in split], similar
