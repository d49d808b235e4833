"""The protocol of the recommendation benches: strong generalisation on a seeded world, and the models beside ours.

90 % of the people train; of each other person half of the items are history, and NDCG@20 is taken on the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import sparse

from modeling.core import bases, planning
from modeling.core.encoder import Encoder
from modeling.core.heads.recommend import TRAIN
from modeling.core.recommend_rounds import Rounds
from modeling.core.recommend_scores import ItemModel
from modeling.core.recommend_statistics import Array64, Indices, catalogue_features, item_sets, unit
from modeling.core.types import Array, Plan, Recipe, Shape
from modeling.packs.samples import shop

DATA_DIR = Path(__file__).resolve().parents[2] / ".data"
TOP = 20
SPLIT = 7
Scorer: TypeAlias = Callable[[sparse.csr_matrix], npt.NDArray[Any]]  # histories [b, n] to scores [b, n]


@dataclass(frozen=True)
class World:
    """A catalogue's public features [n, d], and everybody's item sets."""

    name: str
    features: Array
    people: list[Indices]

    @property
    def items(self) -> int:
        return len(self.features)


@dataclass(frozen=True)
class Split:
    """Who trains, and the folded-in people's histories and hidden items, as rows of 0 and 1."""

    training: list[Indices]
    history: sparse.csr_matrix
    hidden: sparse.csr_matrix

    @cached_property
    def matrix(self) -> sparse.csr_matrix:
        return rows_of(self.training, self.history.shape[1])

    @cached_property
    def popularity(self) -> float:
        """NDCG@20 of the most chosen items, exact counts."""
        return ndcg(self, popular(np.asarray(self.matrix.sum(axis=0)).ravel()))


def embedded(name: str, texts: Sequence[str]) -> Array:
    """PCA features of the texts, kept beside the other bench results."""
    cache = DATA_DIR / "bench" / f"{name}.npy"
    if not cache.exists():
        cache.parent.mkdir(parents=True, exist_ok=True)
        np.save(cache, Encoder(bases.path(DATA_DIR / "models", "minilm-l6")).embed_all(texts))
    found: Array = np.load(cache)
    return catalogue_features(found)


def shop_world(seed: int = shop.SEED, text_share: float = shop.TEXT_SHARE) -> World:
    """The demo shop's 50,000 people, or another world of the same law."""
    features = embedded(f"shop-{seed}", [text for _, _, text in shop.shop_items(seed)])
    people = item_sets([row.tolist() for row in shop.shop_choices(seed, text_share)], len(features))
    return World(f"shop {seed} ({text_share:.0%} text)", features, people)


def rows_of(sets: Sequence[Indices], items: int) -> sparse.csr_matrix:
    """Item sets as a matrix of 0 and 1 [people, items]."""
    row = np.repeat(np.arange(len(sets)), [found.size for found in sets])
    column = np.concatenate(sets) if len(sets) else np.zeros(0, dtype=np.int64)
    return sparse.csr_matrix((np.ones(column.size), (row, column)), shape=(len(sets), items))


def split(world: World, *, seed: int = SPLIT, train: int | None = None, folded: int | None = None) -> Split:
    """90/10 by seed; `train` and `folded` keep that many of each. People with one item are not folded in."""
    order = np.random.default_rng(seed).permutation(len(world.people))
    border = len(order) // 10
    return fold(
        [world.people[unit_] for unit_ in order[border:][:train]],
        [world.people[unit_] for unit_ in order[:border][:folded]],
        world.items,
        seed,
    )


def fold(training: list[Indices], others: list[Indices], items: int, seed: int) -> Split:
    """Half of each other person's items, drawn by seed, as history; the rest hidden."""
    source = np.random.default_rng(seed + 1)
    shuffled = [source.permutation(found) for found in others if found.size > 1]
    history = rows_of([np.sort(found[: found.size // 2]) for found in shuffled], items)
    hidden = rows_of([np.sort(found[found.size // 2 :]) for found in shuffled], items)
    return Split(training, history, hidden)


def ndcg(split: Split, scores: Scorer) -> float:
    """Mean NDCG@20 of the hidden items, the history excluded from the list."""
    gains = 1.0 / np.log2(np.arange(2, TOP + 2))
    ideal = np.cumsum(gains)[np.minimum(np.asarray(split.hidden.sum(axis=1), dtype=int).ravel(), TOP) - 1]
    total = 0.0
    for start in range(0, len(ideal), 1000):
        past, hidden = split.history[start : start + 1000], split.hidden[start : start + 1000]
        found = np.array(scores(past), dtype=np.float64)
        found[past.nonzero()] = -np.inf
        top = np.argpartition(-found, TOP - 1, axis=1)[:, :TOP]
        top = np.take_along_axis(top, np.argsort(-np.take_along_axis(found, top, 1), axis=1), 1)
        hit = np.asarray(hidden[np.arange(len(top))[:, None], top].todense()) > 0
        total += float(((hit * gains).sum(axis=1) / ideal[start : start + 1000]).sum())
    return total / len(ideal)


def popular(counts: Array64) -> Scorer:
    """The same order for everybody."""
    return lambda past: np.repeat(counts[None], past.shape[0], axis=0)


def of_model(model: ItemModel) -> Scorer:
    """`ItemModel.score_history` for many people at once."""

    def scores(past: sparse.csr_matrix) -> Array64:
        found = np.repeat(model.log_p[None].astype(np.float64), past.shape[0], axis=0)
        for part in model.parts:
            soft = part.soft(np.arange(len(model.ids)))
            found += part.neighbour * (unit(past @ soft) @ soft.T)
            if part.taste:
                found += part.taste * ((unit(past @ part.features) - part.direction) @ part.vectors.T)
        return found

    return scores


def head_model(
    world: World, split: Split, *, epsilon: float | None, seed: int, method: str = "auto"
) -> tuple[Plan, ItemModel]:
    """The plan and the model of our head; its noise is seeded here, so that a bench can be repeated."""
    reason = "" if epsilon else "bench"
    recipe = Recipe("recommendation", "minilm-l6", method, epsilon=epsilon, privacy_off_reason=reason)
    units = len(split.training)
    plan = planning.plan(recipe, Shape(units, split.history.shape[0], split.matrix.nnz, items=world.items))
    sigma = next((mechanism.sigma for mechanism in plan.mechanisms if mechanism.name == TRAIN), 0.0)
    rounds = Rounds(plan.method, world.features, sigma, int(plan.settings["width"]))
    source = np.random.default_rng(seed)
    while len(rounds.released) < plan.steps:
        rounds.take(rounds.release(split.training, source.standard_normal))
    tensors, parts = rounds.artifact()
    return plan, ItemModel(tensors, {"items": range(world.items), "parts": parts})


def ease(split: Split, penalty: float) -> Scorer:
    """EASE (Steck 2019) without privacy: the closed-form item-item regression."""
    gram = (split.matrix.T @ split.matrix).toarray() + penalty * np.eye(split.matrix.shape[1])
    inverse = np.linalg.inv(gram)
    pairs = -inverse / np.diag(inverse)
    np.fill_diagonal(pairs, 0.0)
    return lambda past: np.asarray(past @ pairs)


def implicit_als(split: Split, *, factors: int, regularization: float, alpha: float) -> Scorer:
    """`implicit`'s ALS without privacy; a folded-in person's vector is solved from the history."""
    from implicit.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(
        factors=factors,
        regularization=regularization,
        alpha=alpha,
        iterations=15,
        random_state=1,
        num_threads=1,
        use_gpu=False,
    )
    model.fit(split.matrix.astype(np.float32), show_progress=False)

    def scores(past: sparse.csr_matrix) -> npt.NDArray[Any]:
        people = model.recalculate_user(np.arange(past.shape[0]), past.astype(np.float32))
        return np.asarray(people @ model.item_factors.T)

    return scores
