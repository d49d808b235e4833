"""Recommendation under user-level privacy: one person's bound, the gate, the run, and the scores."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling.core import planning
from modeling.core.heads import recommend
from modeling.core.recommend_scores import ItemModel, recommend_scores
from modeling.core.recommend_solution import solve
from modeling.core.recommend_statistics import (
    POPULARITY_SHARES,
    SSR_SHARES,
    catalogue_features,
    collect,
    item_sets,
    stack,
    stacked_size,
    unstack,
)
from modeling.core.spending import Spending
from modeling.core.types import (
    Array,
    CannotTrain,
    Charge,
    Checkpoint,
    CoreError,
    HeldOut,
    Plan,
    Recipe,
    Shape,
    Trained,
    TrainingData,
)

ITEMS, WIDTH = 60, 8
MODELS_DIR = Path(os.environ["MODELS_DIR"])
RECIPE = Recipe(task="recommendation", base="minilm-l6", epsilon=8.0)


def embeddings(seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((ITEMS, WIDTH)).astype(np.float32)


def people(count: int, seed: int = 1) -> list[list[int]]:
    """Each likes the items on one side of a random direction of the text's space; item 0 is everybody's."""
    source, places = np.random.default_rng(seed), embeddings()
    found = []
    for _ in range(count):
        wanted = places @ source.standard_normal(WIDTH) + source.gumbel(size=ITEMS)
        found.append([0, *np.argsort(-wanted)[: source.integers(3, 9)].tolist()])
    return found


def plan_for(units: int, *, held_out: int = 100, epsilon: float | None = 8.0, method: str = "auto") -> Plan:
    reason = "a test" if epsilon is None else ""
    recipe = replace(RECIPE, epsilon=epsilon, method=method, privacy_off_reason=reason)
    return planning.plan(recipe, Shape(units, held_out, rows=units * 5, items=ITEMS))


@settings(max_examples=150, deadline=None)
@given(
    history=st.lists(st.integers(-3, ITEMS + 3), max_size=ITEMS * 2),
    seed=st.integers(0, 5),
    shares=st.sampled_from([SSR_SHARES, POPULARITY_SHARES]),
)
def test_nobody_moves_the_stacked_statistics_by_more_than_one(
    history: list[int], seed: int, shares: dict[str, float]
) -> None:
    features = catalogue_features(embeddings(seed))
    others = people(5)
    without = stack(collect(item_sets(others, ITEMS), features), shares)
    included = stack(collect(item_sets([*others, history], ITEMS), features), shares)
    assert np.linalg.norm(included - without) <= 1 + 1e-9


def test_a_full_history_does_move_them() -> None:
    features = catalogue_features(embeddings())
    moved = stack(collect(item_sets([[1, 2, 3, 4]], ITEMS), features), SSR_SHARES)
    assert np.linalg.norm(moved) > 0.99 * np.sqrt(0.75)  # w of the taste part is 1/2 with four items


def test_the_stack_can_be_undone() -> None:
    features = catalogue_features(embeddings())
    exact = collect(item_sets(people(50), ITEMS), features)
    vector = stack(exact, SSR_SHARES)
    assert vector.size == stacked_size(SSR_SHARES, *features.shape)
    again = unstack(vector, SSR_SHARES, *features.shape)
    np.testing.assert_allclose(again.following, exact.following, atol=1e-12)
    np.testing.assert_allclose(again.taste, exact.taste, atol=1e-10)


def test_the_statistics_equal_a_loop_over_people() -> None:
    features = catalogue_features(embeddings()).astype(np.float64)
    histories = [[3, 3, 7, 99], [5], [], [1, 2, 3, 4]]
    found = collect(item_sets(histories, ITEMS), features.astype(np.float32))
    popularity, following = np.zeros(ITEMS), np.zeros(features.shape)
    taste = np.zeros((features.shape[1],) * 2)
    for history in histories:
        items = sorted({item for item in history if item < ITEMS})
        if not items:
            continue
        w = 1 / np.sqrt(len(items))
        total = features[items].sum(axis=0)
        taste += w * np.outer(total, total) / (total @ total)
        for item in items:
            popularity[item] += w
            rest = total - features[item]
            following[item] += w * rest / np.linalg.norm(rest) if len(items) > 1 else 0
    np.testing.assert_allclose(found.popularity, popularity, atol=1e-6)
    np.testing.assert_allclose(found.following, following, atol=1e-6)
    np.testing.assert_allclose(found.taste, taste, atol=1e-6)


@pytest.mark.parametrize(
    ("units", "epsilon", "method"),
    [
        (604, 8.0, "popularity"),
        (5_000, 8.0, "popularity"),
        (15_000, 8.0, "ssr"),
        (15_000, 3.0, "ssr"),
        (15_000, 1.0, "popularity"),
        (40_000, 1.0, "ssr"),
        (604, None, "popularity"),
        (5_000, None, "ssr"),
    ],
)
def test_the_gate_by_people_and_epsilon(units: int, epsilon: float | None, method: str) -> None:
    plan = plan_for(units, epsilon=epsilon)
    assert plan.method == method
    assert bool(plan.notes) == (method == "popularity")


def test_the_fallback_says_why() -> None:
    assert plan_for(604).notes == (
        (
            "With 604 people at epsilon 8 a private model cannot learn personal taste; "
            "you get private popularity and catalogue similarity."
        ),
    )


def test_a_plan_meets_its_epsilon_with_one_release() -> None:
    plan = plan_for(15_000, held_out=3_000)
    assert plan.epsilon == pytest.approx(8.0, abs=0.02)
    assert [item.count for item in plan.mechanisms] == [1, 1]
    assert plan.mechanisms[1].partition == "held_out"


def test_a_catalogue_of_a_few_items_is_refused() -> None:
    with pytest.raises(CannotTrain, match="3 items"):
        planning.plan(RECIPE, Shape(5_000, 100, rows=9_000, items=3))


@pytest.fixture(scope="module")
def data() -> TrainingData:
    histories = people(4_000)
    held_out = [index % 8 == 0 for index in range(len(histories))]
    catalogue = [(f"item-{number}", f"text {number}") for number in range(ITEMS)]
    return TrainingData(range(len(histories)), held_out, histories=histories, catalogue=catalogue)


@pytest.fixture(scope="module")
def model(data: TrainingData) -> ItemModel:
    """SSR without noise on the synthetic people."""
    features = catalogue_features(embeddings())
    exact = collect(item_sets(data.histories, ITEMS), features)
    found = solve(exact, features, 0.0)
    tensors = {
        "items.B": found.B,
        "items.features": features,
        "items.log_p": found.log_p,
        "direction": found.direction,
    }
    return ItemModel(tensors, {"method": "ssr", "items": [item for item, _ in data.catalogue]})


def without_vectors(model: ItemModel) -> ItemModel:
    """The same model with nothing left but popularity."""
    tensors = {
        "items.B": np.zeros_like(model.B),
        "items.features": model.features,
        "items.log_p": model.log_p,
        "direction": model.direction,
    }
    return ItemModel(tensors, {"method": "ssr", "items": model.ids})


def test_learned_taste_beats_popularity(model: ItemModel, data: TrainingData) -> None:
    held_out = item_sets([data.histories[unit] for unit in range(0, 4_000, 8)], ITEMS)
    learned = recommend.hidden_item_scores(model, held_out)[:, 1].mean()
    popular = without_vectors(model)
    baseline = recommend.hidden_item_scores(popular, held_out)[:, 1].mean()
    assert learned > 1.1 * baseline


def test_a_cold_person_gets_popularity(model: ItemModel) -> None:
    first = recommend_scores(model, history=["gone from the catalogue"], k=3)
    assert first == recommend_scores(model, k=3)
    assert first[0][0] == "item-0"
    assert [score for _, score in first] == sorted((score for _, score in first), reverse=True)


def test_history_and_excluded_items_do_not_come_back(model: ItemModel) -> None:
    history, exclude = ["item-1", "item-2", "item-unknown"], ["item-0"]
    found = [item for item, _ in recommend_scores(model, history=history, exclude=exclude, k=ITEMS)]
    assert not {"item-0", "item-1", "item-2", "item-unknown"} & set(found)
    assert len(found) == ITEMS - 3


def test_similar_items_leave_popularity_out(model: ItemModel) -> None:
    found = recommend_scores(model, similar_to="item-5", k=5)
    assert "item-5" not in [item for item, _ in found]
    expected = model.unit_B @ model.unit_B[5]
    closest = np.argsort(-expected)[1:6]
    assert len({f"item-{number}" for number in closest} & {item for item, _ in found}) >= 2


def test_an_unknown_similar_item_is_refused(model: ItemModel) -> None:
    with pytest.raises(CoreError, match="not in this model's catalogue"):
        recommend_scores(model, similar_to="nothing")


def test_the_hidden_item_score_is_bounded(model: ItemModel) -> None:
    scores = recommend.hidden_item_scores(model, item_sets([*people(50), []], ITEMS))
    assert scores.min() >= 0
    assert scores.max() <= 1
    assert not scores[-1].any()


@pytest.mark.real_weights
@pytest.mark.parametrize("epsilon", [8.0, None])
def test_a_job_charges_before_it_releases(data: TrainingData, epsilon: float | None) -> None:
    plan = plan_for(3_500, held_out=500, epsilon=epsilon, method="popularity" if epsilon else "ssr")
    events = list(recommend.SsrHead().train(plan, data, models_dir=MODELS_DIR, resume=None, spent={}))
    charges = [event.mechanism for event in events if isinstance(event, Charge)]
    assert charges == (["train", "held_out"] if epsilon else [])
    kinds = [type(event) for event in events]
    if epsilon:
        assert kinds.index(Charge) < kinds.index(Checkpoint)
    assert HeldOut in kinds
    assert isinstance(events[-1], Trained)
    assert events[-1].config["items"][0] == "item-0"
    assert 0 < events[-1].metrics["hit_rate_at_20"] <= 1


@pytest.mark.real_weights
def test_a_resumed_job_releases_nothing_twice(data: TrainingData) -> None:
    plan = plan_for(3_500, held_out=500)
    head = recommend.SsrHead()
    events = list(head.train(plan, data, models_dir=MODELS_DIR, resume=None, spent={}))
    checkpoint = next(event for event in events if isinstance(event, Checkpoint))
    spent = {"train": 1, "held_out": 1}
    again = list(head.train(plan, data, models_dir=MODELS_DIR, resume=checkpoint, spent=spent))
    assert not [event for event in again if isinstance(event, Charge | HeldOut)]
    first, second = events[-1], again[-1]
    assert isinstance(first, Trained)
    assert isinstance(second, Trained)
    np.testing.assert_array_equal(first.tensors["items.log_p"], second.tensors["items.log_p"])


def test_a_lost_release_cannot_be_repeated() -> None:
    with pytest.raises(CoreError, match="reserved"):
        Spending(plan_for(3_500), {"train": 1}).charge("train", 1)
