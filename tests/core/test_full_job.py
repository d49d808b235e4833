"""Full fine-tuning by ghost clipping, end to end on a tiny random Bert, and the engine's answer from its artefact."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from modeling.core import accounting, artifacts, bases, planning
from modeling.core.encoder import Encoder, Tokens
from modeling.core.predictor import classify_probabilities
from modeling.core.text_model import put_full
from modeling.core.training import train
from modeling.core.types import CannotTrain, Charge, Checkpoint, HeldOut, Progress, Shape, Trained
from modeling.serving.bert import Bert
from tests.core.tiny_text import LABELS, make_base, make_data, make_recipe, shape_of

DATA = make_data(1500)


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    make_base(models)
    return models


def test_it_works(models_dir: Path) -> None:
    plan = planning.plan(make_recipe("full", max_steps=10), shape_of(DATA))
    start, step, held_out, _ = plan.mechanisms
    assert 0 < step.sampling_rate < 1
    assert 7.9 < accounting.epsilon([start, step], plan.delta) <= 8.0
    assert any("tables" in note for note in plan.notes)
    assert any("try the head first" in note for note in plan.notes)
    events = list(train(plan, DATA, models_dir=models_dir))
    trained = events[-1]
    assert isinstance(trained, Trained)
    charges = [event for event in events if isinstance(event, Charge) and event.mechanism == "train"]
    assert [charge.first for charge in charges] == list(range(10))
    assert [event.step for event in events if isinstance(event, Checkpoint)] == [0, 4, 8, 10]
    assert len([event for event in events if isinstance(event, HeldOut)]) == held_out.count
    assert [event.epsilon for event in events if isinstance(event, Progress)][-1] == pytest.approx(
        plan.epsilon, abs=0.01
    )
    assert trained.metrics["accuracy"] > 0.6
    layers = {name for name in trained.tensors if name.startswith("full.")}
    assert "full.encoder.layer.1.output.dense.weight" in layers
    assert not any("word_embeddings" in name for name in layers)
    assert not any(name.startswith("lora.") for name in trained.tensors)


def test_the_engine_answers_as_the_trained_model(models_dir: Path) -> None:
    """Stored, loaded, put into the serving encoder: the probabilities of the core's own predictor."""
    plan = planning.plan(make_recipe("full", epsilon=None, max_steps=20), shape_of(DATA))
    trained = list(train(plan, DATA, models_dir=models_dir))[-1]
    assert isinstance(trained, Trained)
    tensors, config = artifacts.load(artifacts.dump(trained.tensors, trained.config))
    folder = bases.path(models_dir, "minilm-l6")
    encoder = Encoder(folder)
    encoder.dtype = torch.float32
    before = classify_probabilities(tensors, config, encoder.embed_all(DATA.texts))
    put_full(encoder.model, tensors)
    direct = classify_probabilities(tensors, config, encoder.embed_all(DATA.texts))
    assert np.abs(direct - before).max() > 1e-2  # the control: the layers were trained
    right = direct.argmax(axis=1) == np.array(DATA.labels)
    assert right[np.array(DATA.held_out)].mean() == pytest.approx(trained.metrics["accuracy"], abs=0.01)
    own = {
        name.removeprefix("full."): torch.from_numpy(value)
        for name, value in tensors.items()
        if "full." in name
    }
    with torch.inference_mode():
        served = Bert(folder).changed(own).embed(Tokens(folder)(DATA.texts)).numpy()
    assert np.abs(classify_probabilities(tensors, config, served) - direct).max() < 1e-4


def test_a_resumed_run_goes_on_from_the_checkpoint_with_fresh_randomness(models_dir: Path) -> None:
    plan = planning.plan(make_recipe("full", max_steps=6), shape_of(DATA))
    events = train(plan, DATA, models_dir=models_dir)
    checkpoint = next(event for event in events if isinstance(event, Checkpoint) and event.step == 4)
    events.close()  # type: ignore[attr-defined]
    # The fifth step was charged and lost.
    spent = {plan.mechanisms[0].name: plan.mechanisms[0].count, "train": 5, "held_out": 3}
    found = []
    for _ in range(2):
        again = list(train(plan, DATA, models_dir=models_dir, resume=checkpoint, spent=spent))
        charges = [event for event in again if isinstance(event, Charge) and event.mechanism == "train"]
        assert [(charge.first, charge.count) for charge in charges] == [(5, 1)]
        assert isinstance(again[-1], Trained)
        found.append(again[-1].tensors)
    layers = [name for name in found[0] if name.startswith("full.")]
    moved = [(found[0][name] != found[1][name]).ravel() for name in layers]
    assert np.concatenate(moved).mean() > 0.9  # other noise on nearly every number


def test_units_with_several_rows_train(models_dir: Path) -> None:
    data = make_data(300, rows_per_unit=3)
    plan = planning.plan(make_recipe("full", max_steps=2), shape_of(data))
    assert isinstance(list(train(plan, data, models_dir=models_dir))[-1], Trained)


def test_an_empty_batch_is_a_charged_step(models_dir: Path) -> None:
    plan = planning.plan(make_recipe("full", max_steps=2), shape_of(DATA))
    plan = replace(plan, settings={**plan.settings, "sampling_rate": 1e-12})
    events = list(train(plan, DATA, models_dir=models_dir))
    assert len([event for event in events if isinstance(event, Charge) and event.mechanism == "train"]) == 2
    assert isinstance(events[-1], Trained)


def test_refuses_too_few_people() -> None:
    with pytest.raises(CannotTrain) as refusal:
        planning.plan(make_recipe("full"), Shape(20, 5, 25, classes=3))
    assert refusal.value.code == "too_few_units"


@pytest.mark.parametrize("method", ["lora", "full"])
def test_rows_may_have_several_labels(models_dir: Path, method: str) -> None:
    random = np.random.default_rng(1)
    sets = [sorted({label, int(random.integers(3))}) for label in DATA.labels]
    texts = [f"{text} {LABELS[max(chosen)]}" for text, chosen in zip(DATA.texts, sets, strict=True)]
    data = replace(DATA, texts=texts, labels=(), label_sets=sets)
    recipe = make_recipe(method, multi_label=True, max_steps=6)
    trained = list(train(planning.plan(recipe, shape_of(data)), data, models_dir=models_dir))[-1]
    assert isinstance(trained, Trained)
    assert trained.config["multi_label"] is True
    assert (
        trained.metrics["accuracy"] > 0.4
    )  # the overlap of labels; always guessing one label gives about a third
