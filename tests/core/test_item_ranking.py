"""Lists of items are exact: never an excluded or filtered one, the best of the rest in order, ties to the earlier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling.core.recommend_columns import MOST_VALUES, Columns, encode
from modeling.core.recommend_ranking import Wish, rank, spread
from modeling.core.recommend_scores import ItemModel, best
from modeling.core.types import CoreError, Tensors

ITEMS, WIDTH = 40, 6
CATEGORIES = ["shoes", "bags", "", "hats"]
CELLS: dict[str, list[Any]] = {
    "category": [CATEGORIES[number % 4] for number in range(ITEMS)],
    "price": [None if number % 7 == 0 else f"{number}.5" for number in range(ITEMS)],
    "tags": [["new"] * (number % 2) + ["sale"] * (number % 3 == 0) for number in range(ITEMS)],
}
NAMES = [f"i{number}" for number in range(ITEMS)]


def made(seed: int = 0, *, columns: Mapping[str, list[Any]] = CELLS) -> tuple[ItemModel, Columns, Any]:
    """A recommender with whole-numbered vectors, so that many scores are equal."""
    chance = np.random.default_rng(seed)
    features = chance.integers(-1, 2, (ITEMS, WIDTH)).astype(np.float32)
    more, written = encode(columns)
    tensors: Tensors = {
        "items.features": features,
        "items.log_p": -chance.integers(1, 4, ITEMS).astype(np.float32),
        "direction": np.zeros(WIDTH, np.float32),
        **more,
    }
    names = {"features": "items.features", "vectors": "items.features", "direction": "direction"}
    parts = [names | {"taste": 0.5, "neighbour": 1.0}]
    config = {"items": NAMES, "parts": parts, "columns": written}
    return ItemModel(tensors, config), Columns(tensors, config), features


def matches(number: int, name: str, condition: Any) -> bool:
    """The filter's meaning, said item by item."""
    cell = CELLS[name][number]
    if name == "price":
        return cell is not None and condition.get("min", -1e9) <= float(cell) <= condition.get("max", 1e9)
    return any(value in condition for value in (cell if isinstance(cell, list) else [cell]) if value)


items = st.lists(st.sampled_from([*NAMES, "nowhere"]), max_size=12)
prices = st.fixed_dictionaries({}, optional={"min": st.integers(0, 40), "max": st.integers(0, 40)})
filters = st.fixed_dictionaries(
    {},
    optional={
        "category": st.lists(st.sampled_from(["shoes", "bags", "hats", "boats"]), min_size=1, max_size=3),
        "price": prices,
        "tags": st.lists(st.sampled_from(["new", "sale"]), min_size=1, max_size=2),
    },
)


@settings(max_examples=300, deadline=None)
@given(
    history=items,
    exclude=items,
    candidates=st.none() | st.lists(st.sampled_from([*NAMES, "nowhere"]), max_size=40),
    kept=filters,
    dropped=filters,
    similar_to=st.none() | st.sampled_from(NAMES),
    k=st.integers(1, ITEMS + 5),
    seed=st.integers(0, 3),
)
def test_a_list_is_the_best_of_what_may_be_shown(
    history: list[str], exclude: list[str], candidates: list[str] | None, kept: dict[str, Any], dropped: dict[str, Any],
    similar_to: str | None, k: int, seed: int,
) -> None:  # fmt: skip
    model, columns, looks = made(seed)
    wish = Wish(history, similar_to, exclude, candidates, kept, dropped, k=k)
    found = rank(model, columns, looks, wish).items
    past = model.known(history)
    scores = model.score_history(past) if similar_to is None else model.score_similar(model.index[similar_to])
    allowed = [
        number
        for number, name in enumerate(NAMES)
        if name not in {*history, *exclude, similar_to}
        and (candidates is None or name in candidates)
        and all(matches(number, column, condition) for column, condition in kept.items())
        and not any(matches(number, column, condition) for column, condition in dropped.items())
    ]
    brute = sorted(allowed, key=lambda number: (-scores[number], number))[:k]
    assert found == [(NAMES[number], float(scores[number])) for number in brute]
    varied = rank(
        model, columns, looks, Wish(history, similar_to, exclude, candidates, kept, dropped, 0.7, k)
    ).items
    names = [name for name, _ in varied]
    assert len(names) == len(set(names)) == len(brute)
    assert set(names) <= {NAMES[number] for number in allowed}


@settings(max_examples=200, deadline=None)
@given(
    values=st.lists(st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 2.0]), max_size=60),
    k=st.integers(0, 70),
)
def test_the_best_are_a_stable_sort(values: list[float], k: int) -> None:
    scores = np.array(values, dtype=np.float32)
    order = [int(at) for at in np.argsort(-scores, kind="stable") if scores[at] > -np.inf]
    assert best(scores, k) == order[:k]


def test_scores_in_float32_rank_as_in_float64_up_to_ties() -> None:
    chance = np.random.default_rng(5)
    vectors = chance.standard_normal((3_000, 96)).astype(np.float32)
    log_p = chance.standard_normal(3_000).astype(np.float32)
    parts = [{"features": "f", "vectors": "f", "direction": "d", "taste": 0.5, "neighbour": 2.0}]
    tensors: Tensors = {"f": vectors, "d": np.full(96, 0.01, np.float32), "items.log_p": log_p}
    model = ItemModel(tensors, {"items": range(3_000), "parts": parts})
    wide = vectors.astype(np.float64)
    soft = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    for _ in range(40):
        history = chance.choice(3_000, 12, replace=False)
        near, wanted = soft[history].sum(axis=0), wide[history].sum(axis=0)
        exact = log_p + 2.0 * soft @ (near / np.linalg.norm(near))
        exact += 0.5 * wide @ (wanted / np.linalg.norm(wanted) - 0.01)
        found = model.score_history(history.tolist())
        assert np.abs(found - exact).max() < 2e-5
        ours, theirs = best(found, 20), np.argsort(-exact, kind="stable")[:20]
        assert np.abs(exact[ours] - exact[theirs]).max() < 2e-5


def test_diversity_takes_what_is_alike_apart_and_keeps_the_best_first() -> None:
    looks = np.array([[1, 0], [1, 0.01], [0.99, 0], [0, 1], [0.1, 1]], dtype=np.float32)
    scores = np.array([1.0, 0.98, 0.97, 0.9, 0.2], dtype=np.float32)
    assert spread(scores, looks, 0.0, 4) == [0, 1, 2, 3]
    assert spread(scores, looks, 0.5, 2) == [0, 3]
    assert spread(scores, looks, 1.0, 3)[0] == 0
    assert spread(scores[:0], looks[:0], 0.5, 3) == []
    assert spread(np.ones(5, np.float32), looks, 0.5, 5) == spread(np.ones(5, np.float32), looks, 0.5, 5)


def test_a_diverse_list_is_less_alike() -> None:
    chance = np.random.default_rng(2)
    centres = chance.standard_normal((8, 16))
    looks = (centres[np.arange(400) % 8] + 0.1 * chance.standard_normal((400, 16))).astype(np.float32)
    parts = [{"features": "f", "vectors": "f", "direction": "d", "taste": 0.0, "neighbour": 1.0}]
    config = {"items": range(400), "parts": parts, "columns": {}}
    tensors: Tensors = {"f": looks, "d": np.zeros(16, np.float32), "items.log_p": np.zeros(400, np.float32)}
    model, columns = ItemModel(tensors, config), Columns(tensors, config)
    rows = looks / np.linalg.norm(looks, axis=1, keepdims=True)

    def alike(diversity: float) -> float:
        found = rank(model, columns, looks, Wish(history=["3"], diversity=diversity, k=10)).items
        numbers = [int(name) for name, _ in found]
        return float((rows[numbers] @ rows[numbers].T).mean())

    assert alike(0.0) > alike(0.3) > alike(0.8)


def test_what_the_catalogue_does_not_know_is_counted() -> None:
    model, columns, looks = made()
    found = rank(model, columns, looks, Wish(history=["gone", "new"], candidates=["i1", "brand-new"], k=5))
    assert (found.basis, found.unknown) == ("popular", {"history": 2, "candidates": 1})
    assert [name for name, _ in found.items] == ["i1"]


@pytest.mark.parametrize(
    ("kept", "code", "words"),
    [
        ({"colour": ["red"]}, "unknown_column", "category, price, tags"),
        ({"category": {"min": 1}}, "bad_filter", "list of values"),
    ],
)
def test_a_filter_that_cannot_be_is_refused(kept: dict[str, Any], code: str, words: str) -> None:
    with pytest.raises(CoreError, match=words) as refused:
        made()[1].kept(kept)
    assert refused.value.code == code


def test_an_artefact_from_before_says_so() -> None:
    with pytest.raises(CoreError, match="Train it again"):
        Columns({}, {"items": NAMES}).kept({"category": ["shoes"]})


def test_a_number_can_be_named_too() -> None:
    assert made()[1].kept({"price": ["3.5", 5.5]}).sum() == 2


def test_a_column_of_names_is_not_kept() -> None:
    tensors, written = encode({"title": [f"title {n}" for n in range(MOST_VALUES + 1)], "empty": [None, ""]})
    assert (tensors, written) == ({}, {})
