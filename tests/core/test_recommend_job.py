"""A recommender's run: charged before each release, resumed without repeating one, and what a lost one leaves."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from modeling.core.heads import recommend
from modeling.core.spending import Spending
from modeling.core.types import (
    Charge,
    Checkpoint,
    CoreError,
    Event,
    HeldOut,
    Plan,
    Trained,
    TrainingData,
)
from tests.core.shoppers import data_of, plan_for

MODELS_DIR = Path(os.environ["MODELS_DIR"])


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return data_of()


def run(plan: Plan, data: TrainingData, resume: Checkpoint | None = None, **spent: int) -> list[Event]:
    return list(recommend.SsrHead().train(plan, data, models_dir=MODELS_DIR, resume=resume, spent=spent))


def trained(events: list[Event]) -> Trained:
    assert isinstance(events[-1], Trained)
    return events[-1]


@pytest.mark.real_weights
@pytest.mark.parametrize(("epsilon", "rounds"), [(8.0, 1), (8.0, 2), (None, 2)])
def test_a_job_charges_before_it_releases(data: TrainingData, epsilon: float | None, rounds: int) -> None:
    events = run(
        two_rounds() if epsilon and rounds == 2 else plan_for(3_500, held_out=500, epsilon=epsilon), data
    )
    told = [event.mechanism if isinstance(event, Charge) else type(event) for event in events]
    told = [one for one in told if one in ("train", "held_out", Checkpoint, HeldOut)]
    one_round = ["train", Checkpoint] if epsilon else [Checkpoint]
    assert told == [*(one_round * rounds), *(["held_out"] if epsilon else []), HeldOut]
    found = trained(events)
    assert found.config["items"][0] == "item-0"
    assert len(found.config["parts"]) >= 1
    assert 0 < found.metrics["hit_rate_at_20"] <= 1


def two_rounds() -> Plan:
    """The plan of 15,000 people: the same releases on the few that these tests have."""
    plan = plan_for(15_000, held_out=500)
    assert plan.steps == 2
    return plan


@pytest.mark.real_weights
@pytest.mark.parametrize("done", [1, 2])
def test_a_resumed_job_releases_nothing_twice(data: TrainingData, done: int) -> None:
    plan = two_rounds()
    events = run(plan, data)
    checkpoint = [event for event in events if isinstance(event, Checkpoint)][done - 1]
    again = run(plan, data, checkpoint, train=done)
    charges = [(event.mechanism, event.first) for event in again if isinstance(event, Charge)]
    assert charges == [("train", 1), ("held_out", 0)][done - 1 :]
    names = ["items.log_p"] if done == 2 else ["round0.vectors"]
    for name in names:
        np.testing.assert_array_equal(trained(events).tensors[name], trained(again).tensors[name])
    if done == 1:
        assert (trained(events).tensors["round1.vectors"] != trained(again).tensors["round1.vectors"]).any()


@pytest.mark.real_weights
def test_a_second_release_that_was_lost_leaves_the_first_ones_model(data: TrainingData) -> None:
    plan = two_rounds()
    first = next(event for event in run(plan, data) if isinstance(event, Checkpoint))
    again = run(plan, data, first, train=2)
    assert not [event for event in again if isinstance(event, Charge) and event.mechanism == "train"]
    assert trained(again).steps == 1
    assert "round1.vectors" not in trained(again).tensors


@pytest.mark.real_weights
def test_a_job_without_any_release_left_ends(data: TrainingData) -> None:
    with pytest.raises(CoreError, match="reserved"):
        run(two_rounds(), data, train=2)


def test_a_lost_release_cannot_be_repeated() -> None:
    with pytest.raises(CoreError, match="reserved"):
        Spending(plan_for(3_500), {"train": 1}).charge("train", 1)
