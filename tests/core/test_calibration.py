"""Calibration on held-out people: what a person adds, what noise does to it, and whether confidences come true."""

from __future__ import annotations

import math

import numpy as np
import pytest

from modeling.core import accounting, calibration, evaluation
from modeling.core.predictor import sigmoid, softmax

SIGMAS = (0.0, 3.0)


def _world(rows: int, classes: int, *, stretch: float, spread: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose softmax is right about the labels once they are divided by `stretch`."""
    random = np.random.default_rng(5)
    true = random.normal(size=(rows, classes)) * spread
    chances = softmax(true.astype(np.float32)).astype(np.float64)
    labels = (random.random((rows, 1)) < chances.cumsum(axis=1)).argmax(axis=1)
    return (true * stretch).astype(np.float32), labels


def _error(confidence: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error over 15 bins."""
    bins = np.minimum((confidence * 15).astype(int), 14)
    gaps = [
        abs((right[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean()) for b in set(bins)
    ]
    return float(sum(gaps))


def test_a_person_adds_a_vector_of_norm_at_most_one() -> None:
    random = np.random.default_rng(1)
    confidence, right = random.random(400), random.random(400) < 0.5
    units = random.integers(90, size=400)
    cells = calibration.unit_cells(confidence, right, units)
    assert np.linalg.norm(cells, axis=1).max() <= 1 + 1e-12
    assert np.allclose(cells.sum(axis=1), 1.0)
    whole = calibration.histogram(confidence, right, units)
    for unit in np.unique(units):  # leave one person out, one after another
        rest = units != unit
        without = calibration.histogram(confidence[rest], right[rest], units[rest])
        assert np.linalg.norm(whole - without) <= 1 + 1e-12
    assert np.linalg.norm(whole - calibration.histogram(confidence[:0], right[:0], units[:0])) > 1


def test_rows_that_are_not_finite_still_add_at_most_one() -> None:
    cells = calibration.unit_cells(
        np.array([np.nan, np.inf, -np.inf]), np.array([True, False, True]), [0, 1, 2]
    )
    assert np.array_equal(cells.sum(axis=1), [1, 1, 1])


def test_rescaling_is_exact_for_two_classes_and_for_one_label() -> None:
    logits = np.random.default_rng(2).normal(size=(200, 2)).astype(np.float32) * 3
    before, after = softmax(logits).max(axis=1), softmax(logits * np.float32(0.6)).max(axis=1)
    assert np.abs(calibration.rescaled(before.astype(float), 0.6, 1) - after).max() < 1e-3
    single = sigmoid(logits[:, :1])[:, 0]
    wanted = sigmoid(logits[:, :1] * np.float32(0.6))[:, 0]
    assert np.abs(calibration.rescaled(single.astype(float), 0.6, 1) - wanted).max() < 1e-3


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("stretch", [0.6, 1.0, 1.6])
def test_confidences_come_true(classes: int, stretch: float, sigma: float) -> None:
    logits, labels = _world(20_000, classes, stretch=stretch)
    seen, kept = logits[:4_000], logits[4_000:]
    noise = sigma * np.random.default_rng(3).normal(size=(calibration.CELLS // 2, 2))
    counts = calibration.histogram(*calibration.confidences(seen, labels[:4_000]), np.arange(4_000)) + noise
    found = calibration.fit(counts, sigma=sigma, total=4_000, temperature=1.0, classes=classes)
    scaled = (kept / found.temperature).astype(np.float32)
    assert _error(*calibration.confidences(scaled, labels[4_000:])) < 0.03
    if stretch != 1.0:
        assert _error(*calibration.confidences(kept, labels[4_000:])) > 0.05  # without it they do not


def test_noise_that_dominates_leaves_the_public_temperature() -> None:
    counts = 200 * np.random.default_rng(4).normal(size=(calibration.CELLS // 2, 2))
    found = calibration.fit(counts, sigma=200.0, total=100, temperature=1.3, classes=5)
    assert found.temperature == pytest.approx(1.3, rel=0.05)
    assert 0 < found.answered <= 1
    assert 0 <= found.accuracy_answered <= 1


def test_the_threshold_halves_the_errors_as_promised() -> None:
    logits, labels = _world(20_000, 6, stretch=1.0, spread=4.0)
    confidence, right = calibration.confidences(logits, labels)
    counts = calibration.histogram(confidence[:8_000], right[:8_000], np.arange(8_000))
    counts += 2 * np.random.default_rng(6).normal(size=counts.shape)
    found = calibration.fit(counts, sigma=2.0, total=8_000, temperature=1.0, classes=6)
    assert found.abstain_below is not None
    sure, _ = calibration.confidences((logits[8_000:] / found.temperature).astype(np.float32), labels[8_000:])
    answered = sure >= found.abstain_below
    assert answered.mean() == pytest.approx(found.answered, abs=0.03)
    assert right[8_000:][answered].mean() == pytest.approx(found.accuracy_answered, abs=0.03)
    assert 1 - right[8_000:][answered].mean() <= 0.6 * (1 - right[8_000:].mean())


def test_shares_meet_epsilon_together() -> None:
    for beside in ((), ("calibration",), ("calibration", "fairness")):
        assert sum(evaluation.shares("held_out", *beside).values()) == pytest.approx(1)
        planned = evaluation.mechanisms_for(600, epsilon=3.0, delta=1e-5, steps=40, beside=beside)
        assert [item.name for item in planned] == ["held_out", *beside]
        assert accounting.epsilon(planned, 1e-5) == pytest.approx(3.0, abs=0.02)
        assert {item.partition for item in planned} == {"held_out"}


def test_what_would_drown_in_its_noise_is_left_out_and_its_share_goes_to_the_rest() -> None:
    small = evaluation.mechanisms_for(60, epsilon=1.0, delta=1e-5, steps=40)
    assert all(item.name != "calibration" for item in small)
    assert evaluation.mechanisms_for(60, epsilon=None, delta=1e-5, steps=40) == ()
    few = evaluation.mechanisms_for(100, epsilon=3.0, delta=1e-5, steps=40)
    alone = evaluation.mechanism_for(100, epsilon=3.0, delta=1e-5, steps=40)
    assert few == (alone,)


def test_label_sets_score_by_overlap() -> None:
    logits = np.array([[1, -1, 2], [-1, -1, -1], [1, 1, -1], [-1, -2, -1]], dtype=np.float32)
    labels = np.array([[1, 0, 0], [0, 0, 0], [1, 1, 0], [0, 1, 0]])
    assert list(evaluation.row_scores(logits, labels)) == [0.5, 1.0, 1.0, 0.0]
    confidence, right = calibration.confidences(logits, labels)
    assert list(right) == [False, False, True, False]
    assert confidence[0] == pytest.approx(1 / (1 + math.exp(-2)))
