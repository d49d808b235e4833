"""The private text head end to end on a tiny encoder: order of events, resume, budget, quality, refusals."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from modeling.core import accounting, artifacts, evaluation, planning
from modeling.core.predictor import classify_probabilities
from modeling.core.training import train
from modeling.core.types import (
    CannotTrain,
    Charge,
    Checkpoint,
    CoreError,
    Event,
    HeldOut,
    Phase,
    Progress,
    Recipe,
    Shape,
    Trained,
)
from tests.core.tiny_text import make_base, make_data, make_recipe, shape_of

DATA = make_data(600)


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    make_base(models)
    return models


def _exact(trained: Trained, models_dir: Path) -> float:
    from modeling.core import bases
    from modeling.core.encoder import Encoder

    features = Encoder(bases.path(models_dir, "minilm-l6")).embed_all(DATA.texts)
    predicted = classify_probabilities(trained.tensors, trained.config, features).argmax(axis=1)
    return float((predicted == np.array(DATA.labels))[np.array(DATA.held_out)].mean())


def test_it_works(models_dir: Path) -> None:
    plan = planning.plan(make_recipe("auto"), shape_of(DATA))
    assert plan.method == "head"
    assert plan.epsilon == pytest.approx(8.0, abs=0.02)
    events = list(train(plan, DATA, models_dir=models_dir))
    trained = events[-1]
    assert isinstance(trained, Trained)
    assert trained.steps == plan.steps
    assert _exact(trained, models_dir) > 0.8
    assert trained.metrics["accuracy"] == pytest.approx(_exact(trained, models_dir), abs=0.1)
    tensors, config = artifacts.load(artifacts.dump(trained.tensors, trained.config))
    assert config["labels"] == list(plan.recipe.labels)
    found = trained.report["calibration"]
    assert config["temperature"] == found["temperature"] != plan.settings["temperature"]
    assert sum(row["people"] for row in found["bins"]) == pytest.approx(
        shape_of(DATA).held_out_units, rel=0.3
    )
    assert found["noise_error"] == plan.mechanisms[-1].sigma
    assert set(tensors) == {"head.weight", "head.bias"}
    assert tensors["head.weight"].shape == (3, 32)


def test_every_block_is_charged_before_it_runs(models_dir: Path) -> None:
    plan = planning.plan(make_recipe("head"), shape_of(DATA))
    charged = {"train": 0, "held_out": 0, "calibration": 0}
    for event in train(plan, DATA, models_dir=models_dir):
        if isinstance(event, Charge):
            assert event.first == charged[event.mechanism]
            charged[event.mechanism] += event.count
        if isinstance(event, Checkpoint):
            assert event.step == charged["train"]
        if isinstance(event, HeldOut):
            releases = evaluation.schedule(plan.steps)
            assert releases[charged["held_out"] - 1] == event.step
            assert event.total == shape_of(DATA).held_out_units
    assert charged == {item.name: item.count for item in plan.mechanisms}


def test_progress_ends_at_the_planned_epsilon(models_dir: Path) -> None:
    plan = planning.plan(make_recipe("head", epsilon=3.0), shape_of(DATA))
    spent = [
        event.epsilon for event in train(plan, DATA, models_dir=models_dir) if isinstance(event, Progress)
    ]
    assert spent == sorted(spent)
    assert spent[-1] == pytest.approx(plan.epsilon)
    assert all(value is not None and value <= 3.0 for value in spent)


def _until(events: list[Event], count: int) -> tuple[Checkpoint, dict[str, int]]:
    """The last checkpoint and what is spent when a run dies after `count` charges, before their steps are saved."""
    spent, checkpoint = {"train": 0, "held_out": 0, "calibration": 0}, None
    charges = 0
    for event in events:
        if isinstance(event, Charge):
            spent[event.mechanism] += event.count
            charges += event.mechanism == "train"
            if charges == count:
                break
        if isinstance(event, Checkpoint):
            checkpoint = event
    assert checkpoint is not None
    return checkpoint, spent


def test_a_resumed_run_uses_what_remains_with_fresh_noise(models_dir: Path) -> None:
    plan = planning.plan(make_recipe("head"), shape_of(DATA))
    checkpoint, spent = _until(list(train(plan, DATA, models_dir=models_dir)), 9)
    assert checkpoint.step < spent["train"]
    runs = [list(train(plan, DATA, models_dir=models_dir, resume=checkpoint, spent=spent)) for _ in range(2)]
    for events in runs:
        charges = [event for event in events if isinstance(event, Charge) and event.mechanism == "train"]
        assert charges[0].first == spent["train"]
        assert spent["train"] + sum(charge.count for charge in charges) == plan.steps
        assert isinstance(events[-1], Trained)
        assert "accuracy" in events[-1].metrics
    first, second = (events[-1] for events in runs)
    assert isinstance(first, Trained)
    assert isinstance(second, Trained)
    assert not np.array_equal(first.tensors["head.weight"], second.tensors["head.weight"])


def test_a_run_whose_steps_are_used_up_still_ends(models_dir: Path) -> None:
    plan = planning.plan(make_recipe("head"), shape_of(DATA))
    events = list(train(plan, DATA, models_dir=models_dir))
    last = [event for event in events if isinstance(event, Checkpoint)][-1]
    spent = {"train": plan.steps, "held_out": 7, "calibration": 1}
    again = list(train(plan, DATA, models_dir=models_dir, resume=last, spent=spent))
    assert [event.mechanism for event in again if isinstance(event, Charge)] == ["held_out"]
    assert isinstance(again[-1], Trained)
    with pytest.raises(CoreError, match="no checkpoint"):
        list(train(plan, DATA, models_dir=models_dir, spent=spent))


def test_without_privacy_nothing_is_charged_or_noised(models_dir: Path) -> None:
    plan = planning.plan(make_recipe("head", epsilon=None), shape_of(DATA))
    assert plan.mechanisms == ()
    assert plan.epsilon is None
    runs = [list(train(plan, DATA, models_dir=models_dir)) for _ in range(2)]
    ends = [events[-1] for events in runs]
    assert not any(isinstance(event, Charge) for event in runs[0])
    assert np.array_equal(ends[0].tensors["head.weight"], ends[1].tensors["head.weight"])
    assert ends[0].metrics["accuracy_noise_error"] == 0
    assert ends[0].metrics["accuracy"] == pytest.approx(_exact(ends[0], models_dir))


def test_units_with_many_rows_are_clipped_as_one(models_dir: Path) -> None:
    data = make_data(300, rows_per_unit=3)
    plan = planning.plan(make_recipe("head", unit="patient"), shape_of(data))
    assert plan.mechanisms[0].count == plan.steps
    events = list(train(plan, data, models_dir=models_dir))
    assert isinstance(events[-1], Trained)
    assert {event.total for event in events if isinstance(event, Phase)} == {900}


def test_recipe_numbers() -> None:
    shape = Shape(17_285, 4_322, 21_607, classes=21)
    labels = tuple(f"class {index}" for index in range(21))
    plan = planning.plan(Recipe("classification", "minilm-l6", labels=labels), shape)
    mu = accounting.gaussian_mu(8.0, 1e-5)
    train_step, held_out, calibration = plan.mechanisms
    assert plan.steps == round(0.9 * math.sqrt(mu * 17_285))
    assert (train_step.clip, train_step.sampling_rate) == (0.15, 1.0)
    assert train_step.sigma == pytest.approx(math.sqrt(plan.steps) / mu)
    assert plan.settings["learning_rate"] == pytest.approx(0.3 * mu * 17_285 / (math.sqrt(plan.steps) * 0.15))
    assert {held_out.partition, calibration.partition} == {"held_out"}
    assert held_out.count == 8
    fewer = planning.plan(Recipe("classification", "minilm-l6", labels=labels, max_steps=20), shape)
    assert fewer.steps == fewer.mechanisms[0].count == 20
    assert fewer.mechanisms[0].sigma == pytest.approx(math.sqrt(20) / mu)
    assert fewer.epsilon == pytest.approx(8.0, abs=0.02)


@pytest.mark.parametrize(
    ("changes", "units", "code"),
    [
        ({}, 20, "too_few_units"),
        ({"epsilon": 0.5}, 60, "too_few_units"),
        ({"epsilon": 12.0}, 5000, "epsilon_too_large"),
        ({"epsilon": 0.0}, 5000, "invalid_epsilon"),
        ({"epsilon": math.nan}, 5000, "invalid_epsilon"),
        ({"delta": 0.1}, 5000, "invalid_delta"),
        ({"max_steps": 0}, 5000, "invalid_max_steps"),
        ({"method": "forest"}, 5000, "unknown_method"),
        ({"epsilon": None, "privacy_off_reason": " "}, 5000, "reason_required"),
        ({}, 0, "no_rows"),
    ],
)
@pytest.mark.parametrize("method", ["head", "lora", "full"])
def test_refuses_what_cannot_be_private_or_useful(
    method: str, changes: dict[str, object], units: int, code: str
) -> None:
    recipe = make_recipe(**{"method": method, **changes})
    with pytest.raises(CannotTrain) as refusal:
        planning.plan(recipe, Shape(units, units // 4, units, classes=3))
    assert refusal.value.code == code
    assert len(refusal.value.message) > 20


def test_an_owner_may_allow_a_large_epsilon() -> None:
    recipe = make_recipe("head", epsilon=12.0, large_epsilon_allowed=True)
    assert planning.plan(recipe, Shape(5000, 1000, 6000, classes=3)).epsilon == pytest.approx(12.0, abs=0.02)


def test_a_unit_moves_the_held_out_count_by_at_most_one() -> None:
    shares = evaluation.per_unit(np.array([True, True, False, True]), [7, 7, 7, 2])
    assert list(shares) == [1.0, pytest.approx(2 / 3)]


def test_schedules_are_even_and_end_with_the_run() -> None:
    assert evaluation.schedule(80) == [10, 20, 30, 40, 50, 60, 70, 80]
    assert evaluation.schedule(3) == [1, 2, 3]
    for steps, releases in itertools.product(range(1, 60), (5, 8)):
        assert len(evaluation.schedule(steps, releases)) == min(steps, releases)


def test_a_tampered_artifact_is_refused() -> None:
    data = bytearray(artifacts.dump({"head.bias": np.zeros(3, dtype=np.float32)}, {"labels": ["a"]}))
    data[-1] ^= 1
    with pytest.raises(artifacts.BrokenArtifact, match="digest"):
        artifacts.load(bytes(data))
    with pytest.raises(artifacts.BrokenArtifact):
        artifacts.load(b"not a model")
