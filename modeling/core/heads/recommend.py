"""Recommendation, user-level: noised releases of statistics over item features, then a closed form."""

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
from modeling.core.recommend_bands import OF, band, check, notes
from modeling.core.recommend_columns import encode
from modeling.core.recommend_rounds import Rounds
from modeling.core.recommend_scores import ItemModel
from modeling.core.recommend_statistics import Array64, Indices, catalogue_features, item_sets
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
# mu·n, the people over the noise: below the first border private popularity beats learned taste, from the second on
# half of the budget is better spent on asking again in the directions that were learned (measured on synthetic worlds).
SMALLEST_SIGNAL = 3_000.0
TWO_ROUNDS_SIGNAL = 11_000.0
WIDE_SIGNAL = 40_000.0
WIDTHS = {False: 64, True: 96}  # directions of the catalogue's text that the first round asks in
SMALLEST_PEOPLE_OPEN = 1_000  # the first border without privacy, where only people's own spread is noise
SMALLEST_CATALOGUE = 10
TOP = 20
_EVALUATION_ERROR = 0.001  # of the hit rate; more precise than this would only cost budget


class PopularityHead:
    """Private popularity, and the catalogue's own similarity."""

    task = "recommendation"
    method = "popularity"

    def plan(self, recipe: Recipe, shape: Shape, device: str) -> Plan:
        """One release of item counts, each person's set weighted to norm 1."""
        return _plan(recipe, shape, method="popularity", rounds=1)

    def train(
        self,
        plan: Plan,
        data: TrainingData,
        *,
        models_dir: Path,
        resume: Checkpoint | None,
        spent: Mapping[str, int],
    ) -> Iterator[Event]:
        """See Head.train; a checkpoint holds the noised releases, and a resumed run computes from them."""
        return _train(plan, data, models_dir, resume, Spending(plan, spent))


class SsrHead(PopularityHead):
    """Learned taste where people and epsilon allow it; below the gate the plan is the fallback's."""

    method = "ssr"

    def plan(self, recipe: Recipe, shape: Shape, device: str) -> Plan:
        """One or two releases for all training people; the fallback's plan when the gate is closed."""
        found = signal(recipe, shape)
        is_open = recipe.epsilon is None
        if found < (SMALLEST_PEOPLE_OPEN if is_open else SMALLEST_SIGNAL):
            return _plan(recipe, shape, method="popularity", rounds=1)
        return _plan(recipe, shape, method="ssr", rounds=2 if is_open or found >= TWO_ROUNDS_SIGNAL else 1)


def signal(recipe: Recipe, shape: Shape) -> float:
    """What the gate looks at: mu·n, the people over the noise; n when privacy is off."""
    if recipe.epsilon is None:
        return float(shape.train_units)
    return shape.train_units * accounting.gaussian_mu(recipe.epsilon, planning.delta_of(recipe, shape))


def _plan(recipe: Recipe, shape: Shape, *, method: str, rounds: int) -> Plan:
    if shape.items < SMALLEST_CATALOGUE:
        raise CannotTrain(
            f"The catalogue has {shape.items} items; a model needs at least {SMALLEST_CATALOGUE}.",
            code="catalogue_too_small",
        )
    delta = planning.delta_of(recipe, shape)
    mechanisms = _mechanisms(recipe, shape, delta, rounds)
    found = signal(recipe, shape)
    check(recipe, shape, found)
    expected = band(recipe, method, found)
    open_notes = planning.OPEN_NOTES if recipe.epsilon is None else ()
    return Plan(
        recipe=recipe,
        method=method,
        shape=shape,
        mechanisms=mechanisms,
        delta=delta,
        epsilon=accounting.epsilon(mechanisms, delta) if mechanisms else None,
        steps=rounds,
        settings={
            "top": TOP,
            "width": WIDTHS[recipe.epsilon is None or found >= WIDE_SIGNAL],
            "expected_quality": expected.name,
            "expected_low": expected.low,
            "expected_high": expected.high,
            "expected_of": OF,
        },
        notes=(*open_notes, *notes(recipe, shape, method, expected)),
    )


def _mechanisms(recipe: Recipe, shape: Shape, delta: float, rounds: int) -> tuple[Mechanism, ...]:
    if recipe.epsilon is None:
        return ()
    train = Mechanism(TRAIN, accounting.sigma_for(recipe.epsilon, delta, count=rounds), 1.0, rounds)
    held_out = evaluation.mechanism_for(shape.held_out_units, epsilon=recipe.epsilon, delta=delta, steps=1)
    if held_out is None:
        return (train,)
    smallest = accounting.sigma_for(recipe.epsilon, delta, count=1)
    return train, replace(held_out, sigma=max(smallest, _EVALUATION_ERROR * shape.held_out_units))


def _train(
    plan: Plan, data: TrainingData, models_dir: Path, resume: Checkpoint | None, spending: Spending
) -> Iterator[Event]:
    start = time.perf_counter()
    features = yield from _features(data, bases.path(models_dir, plan.recipe.base), start)
    sets = item_sets(data.histories, len(features))
    training = [found for found, held_out in zip(sets, data.held_out, strict=True) if not held_out]
    rounds = Rounds(plan.method, features, _sigma(plan, TRAIN), int(plan.settings["width"]))
    if resume is not None:
        rounds.restore(resume.tensors)
    yield from _rounds(plan, rounds, training, spending, start)
    tensors, config = _artifact(plan, data, rounds)
    people = [found for found, held_out in zip(sets, data.held_out, strict=True) if held_out]
    metrics = yield from _evaluate(plan, ItemModel(tensors, config), people, spending)
    yield Trained(tensors, config, metrics, len(rounds.released), time.perf_counter() - start)


def _rounds(
    plan: Plan, rounds: Rounds, training: Sequence[Indices], spending: Spending, start: float
) -> Iterator[Event]:
    """The releases that are still to be made, each charged first; a release that was charged and lost stays lost."""
    source = NoiseSource()
    while len(rounds.released) < plan.steps:
        if rounds.sigma:
            if rounds.released and not spending.remaining(TRAIN):
                return  # an earlier attempt lost the second release: the first one's model is what there is
            yield spending.charge(TRAIN, 1)
        rounds.take(rounds.release(training, source.normal))
        done, seconds = len(rounds.released), time.perf_counter() - start
        yield Checkpoint(done, rounds.state())
        rate = plan.shape.train_units * done / max(seconds, 1e-9)
        left = seconds / done * (plan.steps - done)
        yield Progress(done, plan.steps, spending.epsilon(), rate, seconds, left)


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


def _sigma(plan: Plan, name: str) -> float:
    """The named mechanism's noise; 0 when the plan has none."""
    return next((mechanism.sigma for mechanism in plan.mechanisms if mechanism.name == name), 0.0)


def _artifact(plan: Plan, data: TrainingData, rounds: Rounds) -> tuple[Tensors, dict[str, Any]]:
    tensors, parts = rounds.artifact()
    more, columns = encode(data.catalogue_columns)
    config: dict[str, Any] = {
        "format": 2,
        "task": "recommendation",
        "base": plan.recipe.base,
        "method": plan.method,
        "items": [item for item, _ in data.catalogue],
        "parts": parts,
        "columns": columns,
    }
    return tensors | more, config


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
