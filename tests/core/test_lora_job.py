"""A small LoRA job under Opacus, end to end on a tiny random Bert."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from modeling.core import accounting, artifacts, bases, lora, planning
from modeling.core.encoder import Encoder
from modeling.core.predictor import classify_probabilities
from modeling.core.training import train
from modeling.core.types import CannotTrain, Charge, Checkpoint, HeldOut, Progress, Shape, Trained
from tests.core.tiny_text import make_base, make_data, make_recipe, shape_of

DATA = make_data(1500)


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    make_base(models)
    return models


def test_it_works(models_dir: Path) -> None:
    plan = planning.plan(make_recipe("lora", max_steps=24), shape_of(DATA))
    start, step, held_out, calibration = plan.mechanisms
    assert step.sampling_rate == pytest.approx(float(plan.settings["expected_batch"]) / 1200)
    assert step.sampling_rate < 1
    assert 7.9 < accounting.epsilon([start, step], plan.delta) <= 8.0
    assert accounting.epsilon([start], plan.delta) < 7.0
    assert {held_out.partition, calibration.partition} == {"held_out"}
    events = list(train(plan, DATA, models_dir=models_dir))
    trained = events[-1]
    assert isinstance(trained, Trained)
    assert [
        (event.first, event.count)
        for event in events
        if isinstance(event, Charge) and event.mechanism == start.name
    ] == [(0, start.count)]
    charges = [event for event in events if isinstance(event, Charge) and event.mechanism == "train"]
    assert [charge.first for charge in charges] == list(range(24))
    assert len([event for event in events if isinstance(event, HeldOut)]) == held_out.count
    assert [event.epsilon for event in events if isinstance(event, Progress)][-1] == pytest.approx(
        plan.epsilon, abs=0.01
    )
    assert trained.metrics["accuracy"] > 0.6
    assert any(np.abs(value).max() > 0 for name, value in trained.tensors.items() if name.endswith(".B"))


def test_the_artifact_answers_as_the_trained_model(models_dir: Path) -> None:
    plan = planning.plan(make_recipe("lora", epsilon=None, max_steps=12), shape_of(DATA))
    trained = list(train(plan, DATA, models_dir=models_dir))[-1]
    assert isinstance(trained, Trained)
    tensors, config = artifacts.load(artifacts.dump(trained.tensors, trained.config))
    encoder = Encoder(bases.path(models_dir, "minilm-l6"))
    lora.attach_artifact(encoder.model, tensors, config)
    probabilities = classify_probabilities(tensors, config, encoder.embed_all(DATA.texts))
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    right = probabilities.argmax(axis=1) == np.array(DATA.labels)
    assert right[np.array(DATA.held_out)].mean() == pytest.approx(trained.metrics["accuracy"], abs=0.01)


def test_a_resumed_run_goes_on_from_the_checkpoint(models_dir: Path) -> None:
    plan = planning.plan(make_recipe("lora", max_steps=6), shape_of(DATA))
    events = train(plan, DATA, models_dir=models_dir)
    checkpoint = [
        event for event, _ in zip(events, range(14), strict=False) if isinstance(event, Checkpoint)
    ][-1]
    events.close()  # type: ignore[attr-defined]
    # One step was charged and lost.
    spent = {plan.mechanisms[0].name: plan.mechanisms[0].count, "train": checkpoint.step + 1, "held_out": 2}
    again = list(train(plan, DATA, models_dir=models_dir, resume=checkpoint, spent=spent))
    charges = [event for event in again if isinstance(event, Charge) and event.mechanism == "train"]
    assert [charge.first for charge in charges] == list(range(checkpoint.step + 1, 6))
    assert isinstance(again[-1], Trained)


def test_two_resumes_of_one_checkpoint_draw_other_batches_and_noise(models_dir: Path) -> None:
    """The same noise on another batch could be subtracted out."""
    plan = planning.plan(make_recipe("lora", max_steps=3), shape_of(DATA))
    events = train(plan, DATA, models_dir=models_dir)
    checkpoint = next(event for event in events if isinstance(event, Checkpoint) and event.step == 2)
    events.close()  # type: ignore[attr-defined]
    assert not any("random" in name or "generator" in name for name in checkpoint.tensors)
    spent = {plan.mechanisms[0].name: plan.mechanisms[0].count, "train": 2, "held_out": 2}
    found = []
    for _ in range(2):
        last = list(train(plan, DATA, models_dir=models_dir, resume=checkpoint, spent=spent))[-1]
        assert isinstance(last, Trained)
        found.append(last.tensors)
    moved = [(value != found[1][name]).ravel() for name, value in found[0].items()]
    assert np.concatenate(moved).mean() > 0.9


def test_without_privacy_there_is_no_mechanism(models_dir: Path) -> None:
    plan = planning.plan(make_recipe("lora", epsilon=None, max_steps=3), shape_of(DATA))
    events = list(train(plan, DATA, models_dir=models_dir))
    assert plan.mechanisms == ()
    assert not any(isinstance(event, Charge) for event in events)
    assert all(event.epsilon is None for event in events if isinstance(event, Progress))


def test_units_with_several_rows_train(models_dir: Path) -> None:
    data = make_data(300, rows_per_unit=3)
    plan = planning.plan(make_recipe("lora", max_steps=3), shape_of(data))
    assert isinstance(list(train(plan, data, models_dir=models_dir))[-1], Trained)


def test_refuses_an_expected_batch_that_is_too_small() -> None:
    with pytest.raises(CannotTrain) as refusal:
        planning.plan(make_recipe("lora"), Shape(20, 5, 25, classes=3))
    assert refusal.value.code == "too_few_units"
    with pytest.raises(CannotTrain, match="smallest allowed"):
        planning.check_batch(31.0)


def test_no_random_state_is_kept(models_dir: Path) -> None:
    plan = planning.plan(make_recipe("lora", max_steps=2), shape_of(DATA))
    torch.manual_seed(5)
    first = list(train(plan, DATA, models_dir=models_dir))[-1]
    torch.manual_seed(5)
    second = list(train(plan, DATA, models_dir=models_dir))[-1]
    assert isinstance(first, Trained)
    assert isinstance(second, Trained)
    assert not np.array_equal(first.tensors["head.weight"], second.tensors["head.weight"])


def test_the_heads_start_runs_as_it_was_reserved(models_dir: Path) -> None:
    plan = planning.plan(make_recipe("lora", max_steps=2), shape_of(DATA))
    start = replace(plan.mechanisms[0], sigma=1e6, count=6)
    events = train(replace(plan, mechanisms=(start, *plan.mechanisms[1:])), DATA, models_dir=models_dir)
    checkpoint = next(event for event in events if isinstance(event, Checkpoint))
    events.close()  # type: ignore[attr-defined]
    # All that noise is in the head: another recipe's sigma would have left it in the hundreds.
    assert np.abs(checkpoint.tensors["value.head.weight"]).max() > 1e4
