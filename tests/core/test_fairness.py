"""The fairness report: exact without privacy, noised and charged with it; no unit moves it by more than its bound."""

from __future__ import annotations

import math

import numpy as np
import pytest

from modeling.core.evaluation import FAIRNESS
from modeling.core.fairness import class_outcomes, counts, error_outcomes, sensitivity
from modeling.core.types import CannotTrain, Charge, Feature
from tests.core.tiny_table import SEX, make_plan, make_table, result_of, run

AGE = Feature("age_band", "category", categories=("young", "old", "older"))


def _vector(outcomes: np.ndarray, groups: dict[str, np.ndarray], units: np.ndarray) -> np.ndarray:
    return np.concatenate([part.ravel() for part in counts(outcomes, groups, (SEX, AGE), units)])


@pytest.mark.parametrize("kind", ["two", "three", "number"])
def test_no_unit_moves_the_vector_by_more_than_the_sensitivity(kind: str) -> None:
    """Each unit in turn is taken out; units own one to five rows in whatever groups."""
    random = np.random.default_rng(0)
    rows = 240
    units = random.integers(80, size=rows)
    groups = {"sex": random.integers(-1, 2, size=rows), "age_band": random.integers(-1, 3, size=rows)}
    classes = {"two": 2, "three": 3}.get(kind, 0)
    if classes:
        outcomes = class_outcomes(
            random.integers(classes, size=rows), random.integers(classes, size=rows), classes=classes
        )
    else:
        outcomes = error_outcomes(random.uniform(0, 1.2, size=rows))
    whole = _vector(outcomes, groups, units)
    moves = []
    for unit in np.unique(units):
        kept = units != unit
        without = _vector(outcomes[kept], {name: one[kept] for name, one in groups.items()}, units[kept])
        moves.append(np.linalg.norm(whole - without))
    assert max(moves) <= sensitivity(2) + 1e-9
    assert max(moves) > 0.5  # the bound is not loose by much: one row, both attributes known


def test_the_report_is_exact_without_privacy() -> None:
    data = make_table(1500)
    report = result_of(run(make_plan(data, epsilon=None), data)).report["fairness"]
    held_out = [row for row in range(1500) if row % 5 == 4]
    (sex,) = report
    women = [row for row in held_out if data.groups["sex"][row] == 0]
    assert sex["groups"][0]["people"] == len(women)
    assert sex["groups"][0]["noise_error"] == 0
    assert sex["gap"] == pytest.approx(
        abs(sex["groups"][0]["accuracy"] - sex["groups"][1]["accuracy"]), abs=2e-4
    )
    rates = {group["group"]: group["positive_rate"] for group in sex["groups"]}
    assert set(rates) == {"female", "male"}
    assert all(0 < rate < 1 for rate in rates.values())


def test_the_release_is_in_the_plan_charged_once_and_noised() -> None:
    data = make_table(3000)
    plan = make_plan(data, epsilon=1.0)
    mechanism = next(item for item in plan.mechanisms if item.name == FAIRNESS)
    assert mechanism.partition == "held_out"
    assert mechanism.count == 1
    assert mechanism.clip == sensitivity(1)
    noises = set()
    for _ in range(3):
        events = run(plan, data)
        assert sum(isinstance(event, Charge) and event.mechanism == FAIRNESS for event in events) == 1
        (sex,) = result_of(events).report["fairness"]
        noises.add(sex["groups"][0]["accuracy"])
        exact = sum(data.groups["sex"][row] == 0 for row in range(3000) if row % 5 == 4)
        assert abs(sex["groups"][0]["people"] - exact) < 6 * 2 * mechanism.sigma
        assert sex["groups"][0]["noise_error"] > 0
    assert len(noises) > 1


def test_small_groups_are_marked_by_the_released_count_and_left_out_of_the_gap() -> None:
    data = make_table(1500)
    rare = {"sex": [1 if row % 5 == 4 and row < 100 else 0 for row in range(1500)]}
    from dataclasses import replace

    (sex,) = result_of(run(make_plan(data, epsilon=None), replace(data, groups=rare))).report["fairness"]
    assert [group["is_small"] for group in sex["groups"]] == [False, True]
    assert sex["gap"] is None


def test_a_protected_attribute_is_never_learnt_from() -> None:
    data = make_table(1500)
    with pytest.raises(CannotTrain, match="protected"):
        make_plan(data, protected=(Feature("home", "category", categories=("rents", "owns")),))
    with pytest.raises(CannotTrain, match="two groups"):
        make_plan(data, protected=(Feature("sex", "category", categories=("female",)),))


def test_more_attributes_share_one_release() -> None:
    data = make_table(1500)
    plan = make_plan(data, protected=(SEX, AGE))
    assert next(item for item in plan.mechanisms if item.name == FAIRNESS).clip == math.sqrt(2)
