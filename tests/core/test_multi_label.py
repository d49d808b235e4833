"""Several labels a row: clipped sums equal a loop, a job learns them, its held-out figure is the overlap."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from modeling.core import evaluation, planning
from modeling.core.predictor import classify_logits, classify_probabilities
from modeling.core.softmax_head import SigmoidHead, head_for, with_bias
from modeling.core.training import train
from modeling.core.types import Charge, Recipe, Trained, TrainingData
from tests.core.tiny_text import WORDS, make_base, make_recipe, shape_of


def _loop(x: np.ndarray, y: np.ndarray, units: np.ndarray, weights: np.ndarray, clip: float) -> np.ndarray:
    """One unit after another, in float64, with the gradient written out."""
    total = np.zeros(weights.shape)
    for unit in np.unique(units):
        rows = np.flatnonzero(units == unit)
        gradient = np.zeros(weights.shape)
        for row in rows:
            features = with_bias(x[row : row + 1])[0].astype(np.float64)
            gradient += np.outer(1 / (1 + np.exp(-weights @ features)) - y[row], features) / len(rows)
        total += gradient * min(1.0, clip / np.linalg.norm(gradient))
    return total


def _world(rows: int, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(1)
    features = random.normal(size=(rows, 12)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    labels = (random.random((rows, classes)) < 0.3).astype(np.int64)
    return features, labels, random.normal(size=(classes, 13)).astype(np.float32)


@pytest.mark.parametrize("clip", [0.15, 0.5, 100.0])
def test_clipped_sum_equals_a_loop_over_units(clip: float) -> None:
    x, y, weights = _world(90, 5)
    for units in (np.arange(90), np.random.default_rng(2).integers(25, size=90)):
        ours = SigmoidHead(x, y, units).gradient(weights, clip=clip)
        assert np.abs(ours - _loop(x, y, units, weights, clip)).max() < 1e-5


def test_a_unit_adds_at_most_the_clip_whatever_its_labels() -> None:
    x, y, weights = _world(8, 6)
    for labels in (y, np.ones_like(y), np.zeros_like(y)):
        one = SigmoidHead(x, labels, np.zeros(8, dtype=np.int64)).gradient(100 * weights, clip=0.15)
        assert np.linalg.norm(one) <= 0.15


def test_other_rows_do_not_change_a_units_part() -> None:
    x, y, weights = _world(9, 4)
    rest, units = slice(1, 9), np.arange(9)
    first = SigmoidHead(x, y, units).gradient(weights, clip=0.3)
    first -= SigmoidHead(x[rest], y[rest], units[rest]).gradient(weights, clip=0.3)
    x[rest], y[rest] = -x[rest], 1 - y[rest]
    second = SigmoidHead(x, y, units).gradient(weights, clip=0.3)
    second -= SigmoidHead(x[rest], y[rest], units[rest]).gradient(weights, clip=0.3)
    assert np.abs(first - second).max() < 1e-6


def test_the_labels_choose_the_head() -> None:
    x, y, _ = _world(6, 3)
    assert isinstance(head_for(x, y, np.arange(6), bias=0.25), SigmoidHead)
    assert not isinstance(head_for(x, y[:, 0], np.arange(6), bias=0.25), SigmoidHead)


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    make_base(models)
    return models


def _data(units: int) -> TrainingData:
    """Texts with words of any of three thirds of the vocabulary; each third is a label, and rows may have none."""
    random = np.random.default_rng(0)
    texts, sets = [], []
    for _ in range(units):
        chosen = [label for label in range(3) if random.random() < 0.5]
        words = [WORDS[20 * label + int(word)] for label in chosen for word in random.integers(20, size=4)]
        texts.append(" ".join(words) or "[UNK]")
        sets.append(chosen)
    held_out = [unit < 0.25 * units for unit in range(units)]
    return TrainingData(units=range(units), held_out=held_out, texts=texts, label_sets=sets)


DATA = _data(1_500)


def _recipe(**changes: object) -> Recipe:
    return make_recipe("auto", multi_label=True, **changes)


def _overlap(trained: Trained, models_dir: Path) -> float:
    from modeling.core import bases
    from modeling.core.encoder import Encoder

    features = Encoder(bases.path(models_dir, "minilm-l6")).embed_all(DATA.texts)
    labels = np.array([[label in chosen for label in range(3)] for chosen in DATA.label_sets], dtype=np.int64)
    scores = evaluation.row_scores(classify_logits(trained.tensors, trained.config, features), labels)
    return float(scores[np.array(DATA.held_out)].mean())


def test_it_works(models_dir: Path) -> None:
    plan = planning.plan(_recipe(), shape_of(DATA))
    assert plan.method == "head"
    assert plan.epsilon == pytest.approx(8.0, abs=0.02)
    assert any("overlap" in note for note in plan.notes)
    events = list(train(plan, DATA, models_dir=models_dir))
    trained = events[-1]
    assert isinstance(trained, Trained)
    assert trained.config["multi_label"] is True
    assert _overlap(trained, models_dir) > 0.7
    assert trained.metrics["accuracy"] == pytest.approx(_overlap(trained, models_dir), abs=0.1)
    assert trained.report["calibration"]["temperature"] == trained.config["temperature"]
    charged = {event.mechanism for event in events if isinstance(event, Charge)}
    assert charged == {"train", "held_out", "calibration"}
    chances = classify_probabilities(trained.tensors, trained.config, np.zeros((1, 32), dtype=np.float32))
    assert ((chances >= 0) & (chances <= 1)).all()


def test_without_privacy(models_dir: Path) -> None:
    plan = planning.plan(_recipe(epsilon=None, privacy_off_reason="a test"), shape_of(DATA))
    trained = list(train(plan, DATA, models_dir=models_dir))[-1]
    assert isinstance(trained, Trained)
    assert trained.metrics["accuracy"] == pytest.approx(_overlap(trained, models_dir))
    assert trained.metrics["accuracy"] > 0.8


def test_a_job_whose_rows_all_left_still_ends(models_dir: Path) -> None:
    plan = planning.plan(_recipe(), shape_of(DATA))
    empty = replace(DATA, units=(), texts=(), label_sets=())
    assert isinstance(list(train(plan, empty, models_dir=models_dir))[-1], Trained)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_methods_that_train_the_encoder_take_several_labels(models_dir: Path, method: str) -> None:
    plan = planning.plan(replace(_recipe(), method=method, max_steps=2), shape_of(DATA))
    trained = list(train(plan, DATA, models_dir=models_dir))[-1]
    assert isinstance(trained, Trained)
    assert trained.config["multi_label"] is True
    assert trained.metrics["accuracy"] > 0.5
    assert trained.config["temperature"] == trained.report["calibration"]["temperature"]
