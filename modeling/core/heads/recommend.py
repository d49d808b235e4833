"""Recommendation, user-level: one noised release of statistics over item features, then a closed form."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from modeling.core import accounting, bases, evaluation, planning
from modeling.core.noise import Keystream, NoiseSource
from modeling.core.recommend_scores import ItemModel
from modeling.core.recommend_solution import Solution, popularity_only, solve
from modeling.core.recommend_statistics import (
    POPULARITY_SHARES,
    SSR_SHARES,
    Array64,
    Indices,
    catalogue_features,
    collect,
    item_sets,
    stack,
    unstack,
)
from modeling.core.spending import Spending
from modeling.core.types import (
    Array,
    CannotTrain,
    Checkpoint,
    Event,
    HeldOut,
    Mechanism,
    Phase,
    Plan,
    Progress,
    Recipe,
    Shape,
    Tensors,
    Trained,
    TrainingData,
)

TRAIN = "train"
# mu·n below which private popularity beats learned taste (measured at 5,000, 15,000 and 50,000 people).
SMALLEST_SIGNAL = 10_000.0
SMALLEST_PEOPLE_OPEN = 3_000  # the same border without privacy, where only people's own spread is noise
SMALLEST_CATALOGUE = 10
TOP = 20
_EVALUATION_ERROR = 0.001  # of the hit rate; more precise than this would only cost budget
_SHARES: Mapping[str, Mapping[str, float]] = {"ssr": SSR_SHARES, "popularity": POPULARITY_SHARES}


class PopularityHead:
    """Private popularity, and the catalogue's own similarity."""

    task = "recommendation"
    method = "popularity"

    def plan(self, recipe: Recipe, shape: Shape, device: str) -> Plan:
        """One release of item counts, each person's set weighted to norm 1."""
        return _plan(recipe, shape, method="popularity", notes=())

    def train(
        self,
        plan: Plan,
        data: TrainingData,
        *,
        models_dir: Path,
        resume: Checkpoint | None,
        spent: Mapping[str, int],
    ) -> Iterator[Event]:
        """See Head.train; a checkpoint is the noised release, and a resumed run only computes from it."""
        return _train(plan, data, models_dir, resume, Spending(plan, spent))


class SsrHead(PopularityHead):
    """Learned taste where people and epsilon allow it; below the gate the plan is the fallback's."""

    method = "ssr"

    def plan(self, recipe: Recipe, shape: Shape, device: str) -> Plan:
        """One release for all training people; `plan.method` is "popularity" when the gate is closed."""
        if signal(recipe, shape) >= (SMALLEST_PEOPLE_OPEN if recipe.epsilon is None else SMALLEST_SIGNAL):
            return _plan(recipe, shape, method="ssr", notes=())
        privacy = "" if recipe.epsilon is None else f" at epsilon {recipe.epsilon:g}"
        private = "" if recipe.epsilon is None else "private "
        note = (
            f"With {shape.train_units:,} people{privacy} a {private}model cannot learn personal taste; "
            f"you get {private}popularity and catalogue similarity."
        )
        return _plan(recipe, shape, method="popularity", notes=(note,))


def signal(recipe: Recipe, shape: Shape) -> float:
    """What the gate looks at: mu·n, the people over the noise; n when privacy is off."""
    if recipe.epsilon is None:
        return float(shape.train_units)
    return shape.train_units * accounting.gaussian_mu(recipe.epsilon, planning.delta_of(recipe, shape))


def _plan(recipe: Recipe, shape: Shape, *, method: str, notes: tuple[str, ...]) -> Plan:
    if shape.items < SMALLEST_CATALOGUE:
        raise CannotTrain(
            f"The catalogue has {shape.items} items; a model needs at least {SMALLEST_CATALOGUE}.",
            code="catalogue_too_small",
        )
    delta = planning.delta_of(recipe, shape)
    mechanisms = _mechanisms(recipe, shape, delta)
    return Plan(
        recipe=recipe,
        method=method,
        shape=shape,
        mechanisms=mechanisms,
        delta=delta,
        epsilon=accounting.epsilon(mechanisms, delta) if mechanisms else None,
        steps=1,
        settings={"top": TOP},
        notes=notes,
    )


def _mechanisms(recipe: Recipe, shape: Shape, delta: float) -> tuple[Mechanism, ...]:
    if recipe.epsilon is None:
        return ()
    train = Mechanism(TRAIN, accounting.sigma_for(recipe.epsilon, delta, count=1), 1.0, 1)
    held_out = evaluation.mechanism_for(shape.held_out_units, epsilon=recipe.epsilon, delta=delta, steps=1)
    if held_out is None:
        return (train,)
    return train, replace(held_out, sigma=max(train.sigma, _EVALUATION_ERROR * shape.held_out_units))


def _train(
    plan: Plan, data: TrainingData, models_dir: Path, resume: Checkpoint | None, spending: Spending
) -> Iterator[Event]:
    start = time.perf_counter()
    features = yield from _features(data, bases.path(models_dir, plan.recipe.base), start)
    sets = item_sets(data.histories, len(features))
    training = [found for found, held_out in zip(sets, data.held_out, strict=True) if not held_out]
    sigma = _sigma(plan, TRAIN)
    if resume is None:
        if sigma:
            yield spending.charge(TRAIN, 1)
        released = _release(collect_vector(plan, training, features), sigma)
        yield Checkpoint(1, {"released": released})
    else:
        released = resume.tensors["released"]
    solution = _solution(plan, released, features, sigma)
    tensors, config = _artifact(plan, data, features, solution)
    seconds = time.perf_counter() - start
    rate = plan.shape.train_units / max(seconds, 1e-9)
    yield Progress(1, 1, spending.epsilon(), rate, seconds, 0.0)
    people = [found for found, held_out in zip(sets, data.held_out, strict=True) if held_out]
    metrics = yield from _evaluate(plan, ItemModel(tensors, config), people, spending)
    yield Trained(tensors, config, metrics, 1, time.perf_counter() - start)


def _features(data: TrainingData, base: Path, start: float) -> Generator[Event, None, Array]:
    """Public: the frozen encoder over the catalogue's texts, then PCA [n, d]."""
    texts = [text for _, text in data.catalogue]
    from modeling.core.encoder import Encoder  # here, so that planning does not load torch

    encoder = Encoder(base)
    parts = []
    for first, part in encoder.embed(texts):
        parts.append(part)
        yield Phase("catalogue", first + len(part), len(texts), time.perf_counter() - start)
    return catalogue_features(np.concatenate(parts))


def collect_vector(plan: Plan, sets: Sequence[Indices], features: Array) -> Array64:
    """The exact stacked statistics of the training people, of sensitivity 1: private until noised."""
    return stack(collect(sets, features), _SHARES[plan.method])


def _release(vector: Array64, sigma: float) -> Array64:
    return vector + sigma * NoiseSource().normal(vector.size) if sigma else vector


def _sigma(plan: Plan, name: str) -> float:
    """The named mechanism's noise; 0 when the plan has none."""
    return next((mechanism.sigma for mechanism in plan.mechanisms if mechanism.name == name), 0.0)


def _solution(plan: Plan, released: Array64, features: Array, sigma: float) -> Solution:
    noised = unstack(released, _SHARES[plan.method], *features.shape)
    return (solve if plan.method == "ssr" else popularity_only)(noised, features, sigma)


def _artifact(
    plan: Plan, data: TrainingData, features: Array, solution: Solution
) -> tuple[Tensors, dict[str, Any]]:
    tensors: Tensors = {
        "items.B": solution.B,
        "items.features": features,
        "items.log_p": solution.log_p,
        "direction": solution.direction,
    }
    config: dict[str, Any] = {
        "format": 1,
        "task": "recommendation",
        "base": plan.recipe.base,
        "method": plan.method,
        "items": [item for item, _ in data.catalogue],
    }
    return tensors, config


def _evaluate(
    plan: Plan, model: ItemModel, people: Sequence[Indices], spending: Spending
) -> Generator[Event, None, dict[str, float]]:
    """One item hidden per held-out person: was it in the first 20, and how high? Noised, charged, once."""
    sigma = _sigma(plan, evaluation.MECHANISM)
    if not people or (plan.mechanisms and not spending.remaining(evaluation.MECHANISM)):
        return {}
    if sigma:
        yield spending.charge(evaluation.MECHANISM, 1)
    noise = sigma * math.sqrt(2.0) * NoiseSource().normal(2)
    total = len(people)
    hit, gain = np.clip((hidden_item_scores(model, people).sum(axis=0) + noise) / total, 0.0, 1.0)
    error = sigma * math.sqrt(2.0) / total
    yield HeldOut(1, float(hit), error, total)
    released = {"hit_rate_at_20": float(hit), "ndcg_at_20": float(gain)}
    return {**released, "noise_error": error, "held_out_people": float(total)}


def hidden_item_scores(
    model: ItemModel, people: Sequence[Indices], *, coins: Array64 | None = None
) -> Array64:
    """(hit, NDCG) at 20 of one hidden item a person [people, 2], each in [0, 1].

    `coins` [people] in [0, 1) say which item; by default they are drawn afresh.
    A row's norm is at most sqrt 2, which is why the release adds sigma·sqrt 2 to each sum.
    """
    found = np.zeros((len(people), 2))
    drawn = Keystream().uniform(len(people)) if coins is None else coins
    for row, (items, coin) in enumerate(zip(people, drawn, strict=True)):
        if not items.size:
            continue
        hidden = items[int(coin * items.size)]
        history = items[items != hidden]
        scores = model.score_history(history.tolist())
        scores[history] = -np.inf
        rank = int((scores > scores[hidden]).sum())
        if rank < TOP:
            found[row] = 1.0, 1.0 / math.log2(rank + 2)
    return found
