"""Recommendation under user-level privacy: one person's bound, the gate, the run, and the scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling.core import planning
from modeling.core.heads import recommend
from modeling.core.noise import NoiseSource
from modeling.core.recommend_rounds import Rounds, weights
from modeling.core.recommend_scores import HISTORY, POPULAR, ItemModel, recommend_scores
from modeling.core.recommend_solution import log_share
from modeling.core.recommend_statistics import (
    POPULARITY_SHARES,
    SECOND_SHARES,
    SSR_SHARES,
    catalogue_features,
    collect,
    item_sets,
    stack,
    stacked_size,
    unstack,
)
from modeling.core.types import (
    CannotTrain,
    CoreError,
    Shape,
    TrainingData,
)
from tests.core.shoppers import ITEMS, RECIPE, data_of, embeddings, people, plan_for


@settings(max_examples=150, deadline=None)
@given(
    history=st.lists(st.integers(-3, ITEMS + 3), max_size=ITEMS * 2),
    seed=st.integers(0, 5),
    shares=st.sampled_from([SSR_SHARES, SECOND_SHARES, POPULARITY_SHARES]),
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
    assert np.linalg.norm(moved) > 0.99


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
        taste += np.outer(total, total) / (total @ total)
        for item in items:
            popularity[item] += w
            rest = total - features[item]
            following[item] += w * rest / np.linalg.norm(rest) if len(items) > 1 else 0
    np.testing.assert_allclose(found.popularity, popularity, atol=1e-6)
    np.testing.assert_allclose(found.following, following, atol=1e-6)
    np.testing.assert_allclose(found.taste, taste, atol=1e-6)


@pytest.mark.parametrize(
    ("units", "epsilon", "method", "rounds"),
    [
        (604, 8.0, "popularity", 1),
        (5_000, 1.0, "popularity", 1),
        (5_000, 3.0, "ssr", 1),
        (15_000, 8.0, "ssr", 2),
        (15_000, 1.0, "ssr", 1),
        (45_000, 1.0, "ssr", 2),
        (604, None, "popularity", 1),
        (5_000, None, "ssr", 2),
    ],
)
def test_the_gate_by_people_and_epsilon(units: int, epsilon: float | None, method: str, rounds: int) -> None:
    plan = plan_for(units, epsilon=epsilon)
    assert (plan.method, plan.steps) == (method, rounds)
    assert any("cannot learn personal taste" in note for note in plan.notes) == (method == "popularity")
    assert any("Privacy is off" in note for note in plan.notes) == (epsilon is None)
    assert plan.settings["expected_of"] == "popularity"
    assert 0 < plan.settings["expected_low"] < plan.settings["expected_high"]


def test_the_fallback_says_why() -> None:
    assert plan_for(604).notes[0] == (
        "With 604 people at epsilon 8 a private model cannot learn personal taste; "
        "you get private popularity and catalogue similarity."
    )


def test_counts_that_would_be_noise_are_refused() -> None:
    with pytest.raises(CannotTrain, match="do not bother"):
        plan_for(300, epsilon=1.0)


@pytest.mark.parametrize(("units", "rounds"), [(5_000, 1), (15_000, 2)])
def test_a_plan_meets_its_epsilon_with_its_releases(units: int, rounds: int) -> None:
    plan = plan_for(units, held_out=3_000)
    assert plan.epsilon == pytest.approx(8.0, abs=0.02)
    assert [item.count for item in plan.mechanisms] == [rounds, 1]
    assert plan.mechanisms[1].partition == "held_out"


def test_a_catalogue_of_a_few_items_is_refused() -> None:
    with pytest.raises(CannotTrain, match="3 items"):
        planning.plan(RECIPE, Shape(5_000, 100, rows=9_000, items=3))


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return data_of()


def made(data: TrainingData, *, method: str = "ssr", rounds: int = 2, sigma: float = 0.0) -> ItemModel:
    """A model of the synthetic people, without noise unless asked."""
    found = rounds_of(data, method=method, rounds=rounds, sigma=sigma)
    tensors, parts = found.artifact()
    items = [item for item, _ in data.catalogue]
    return ItemModel(tensors, {"method": method, "items": items, "parts": parts})


def rounds_of(data: TrainingData, *, method: str = "ssr", rounds: int = 2, sigma: float = 0.0) -> Rounds:
    found = Rounds(method, catalogue_features(embeddings()), sigma)
    sets, source = item_sets(data.histories, ITEMS), np.random.default_rng(3)
    while len(found.released) < rounds:
        found.take(found.release(sets, source.standard_normal))
    return found


@pytest.fixture(scope="module")
def model(data: TrainingData) -> ItemModel:
    return made(data)


def without_vectors(model: ItemModel) -> ItemModel:
    """The same model with nothing left but popularity."""
    return ItemModel({"items.log_p": model.log_p.astype(np.float32)}, {"items": model.ids, "parts": []})


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


def test_an_answer_rests_on_known_items_or_on_everybody(model: ItemModel) -> None:
    assert model.basis(["gone", "item-3"]) == HISTORY
    assert model.basis(["gone", "also gone"]) == POPULAR
    assert model.basis([]) == POPULAR
    assert without_vectors(model).basis(["item-3"]) == POPULAR


def test_a_repeated_item_counts_once(model: ItemModel) -> None:
    once = recommend_scores(model, history=["item-3", "item-9"], k=5)
    assert recommend_scores(model, history=["item-3", "item-9", "item-3", "unknown"], k=5) == once


def test_an_item_that_nobody_chose_is_still_found_by_its_text(data: TrainingData) -> None:
    cold = 7
    histories = [[item for item in history if item != cold] for history in data.histories]
    model = made(replace(data, histories=histories))
    alike = model.score_similar(cold)
    places = embeddings()
    told = places @ places[cold]
    told[cold] = alike[cold] = -np.inf
    assert len(set(np.argsort(-told)[:10]) & set(np.argsort(-alike)[:10])) >= 4


def test_an_item_of_which_little_is_known_gets_a_short_vector(data: TrainingData) -> None:
    found = rounds_of(data, rounds=1, sigma=3.0).learned[0]
    lengths = np.linalg.norm(found.soft, axis=1)
    assert lengths.max() <= 1
    exact = rounds_of(data, rounds=1).learned[0]
    assert exact.certainty > found.certainty
    often = np.argsort(-np.bincount(np.concatenate(data.histories), minlength=ITEMS))
    assert lengths[often[:15]].mean() > lengths[often[-15:]].mean()


def test_every_part_of_every_release_has_its_share_of_the_noise(data: TrainingData) -> None:
    """sigma / sqrt(share) on each part, over the releases that a model is made from."""
    sigma, sets = 2.0, item_sets(data.histories[:50], ITEMS)
    found = Rounds("ssr", catalogue_features(embeddings()), sigma)
    for shares in (SSR_SHARES, SECOND_SHARES):
        assert found.shares == shares
        features = found.asked_in
        exact, noised = collect(sets, features), found.release(sets, NoiseSource().normal)
        parts = unstack(noised, shares, *features.shape)
        for name, share in shares.items():
            error = np.asarray(getattr(parts, name) - getattr(exact, name))
            entries = (
                error[~np.eye(len(error), dtype=bool)] * np.sqrt(2) if name == "taste" else error.ravel()
            )
            spread = 6 / np.sqrt(2 * entries.size / (2 if name == "taste" else 1))
            assert np.std(entries) == pytest.approx(sigma / np.sqrt(share), rel=spread), name
        found.take(noised)


@settings(max_examples=60, deadline=None)
@given(history=st.lists(st.integers(0, ITEMS - 1), max_size=ITEMS), heavy=st.booleans())
def test_nobody_moves_the_second_release_by_more_than_one(history: list[int], heavy: bool) -> None:
    """Given the first release, which is public, the second one's exact statistics move by at most 1."""
    first = Rounds("ssr", catalogue_features(embeddings()), 1.0)
    others = item_sets(people(30), ITEMS)
    first.take(first.release(others, np.random.default_rng(0).standard_normal))
    included = [*others, *item_sets([list(range(ITEMS)) if heavy else history], ITEMS)]
    assert np.linalg.norm(first.exact(included) - first.exact(others)) <= 1 + 1e-9


def test_a_stored_state_means_the_same_where_directions_come_with_other_signs(data: TrainingData) -> None:
    found = rounds_of(data, sigma=1.0)
    stored = found.state()
    assert set(stored) == {"released.0", "released.1", "asked.1"}
    again = Rounds("ssr", found.features, 1.0)
    again.restore(stored)
    np.testing.assert_array_equal(
        found.artifact()[0]["round1.vectors"], again.artifact()[0]["round1.vectors"]
    )
    stored["asked.1"] = -stored["asked.1"]  # as another machine would have asked, had it found these
    turned = Rounds("ssr", found.features, 1.0)
    turned.restore(stored)
    np.testing.assert_array_equal(turned.artifact()[0]["round1.features"], stored["asked.1"])


def test_where_little_is_known_the_catalogue_speaks() -> None:
    taste, neighbour, similar = weights([0.05, 0.1])
    assert similar == 1.0
    assert taste[0] == taste[1]
    assert weights([0.6, 0.8])[1][0] == 0.0  # a certain last round speaks alone
    assert weights([]) == ([], [], 2.0)
    assert sum(neighbour) < sum(weights([0.5])[1])


def test_log_popularity_keeps_the_order_that_the_noise_allows() -> None:
    counts = np.array([500.0, 200.0, 60.0, *([3.0] * 60)])
    exact = log_share(counts, 0.0)
    np.testing.assert_allclose(exact, np.log(counts / counts.sum()), rtol=1e-4)
    noised = log_share(counts + 10.0 * np.random.default_rng(1).standard_normal(counts.size), 10.0)
    assert list(np.argsort(-noised)[:3]) == [0, 1, 2]
    assert np.ptp(noised[3:]) < 1.5  # what could all be noise comes out nearly alike


def test_history_and_excluded_items_do_not_come_back(model: ItemModel) -> None:
    history, exclude = ["item-1", "item-2", "item-unknown"], ["item-0"]
    found = [item for item, _ in recommend_scores(model, history=history, exclude=exclude, k=ITEMS)]
    assert not {"item-0", "item-1", "item-2", "item-unknown"} & set(found)
    assert len(found) == ITEMS - 3


def test_similar_items_leave_popularity_out(model: ItemModel) -> None:
    found = recommend_scores(model, similar_to="item-5", k=5)
    assert "item-5" not in [item for item, _ in found]
    everything = model.parts[-1].soft(np.arange(ITEMS))
    expected = everything @ everything[5]
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
