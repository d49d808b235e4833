"""Clipped sums of the head and of LoRA equal a loop over units, and units do not touch each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from modeling.core.encoder import Tokens, pad
from modeling.core.memory import micro_batches, token_rows
from modeling.core.noise import NoiseSource
from modeling.core.privacy import PrivateStepper
from modeling.core.softmax_head import SoftmaxHead, with_bias
from modeling.core.text_model import TextModel
from tests.core.tiny_text import make_base, make_data

CPU = torch.device("cpu")


def _features(rows: int, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(1)
    features = random.normal(size=(rows, 12)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features, random.integers(classes, size=rows), random.normal(size=(classes, 13)).astype(np.float32)


def _head_loop(
    x: np.ndarray, y: np.ndarray, units: np.ndarray, weights: np.ndarray, clip: float
) -> np.ndarray:
    """One unit after another, in float64, with the gradient written out."""
    total = np.zeros(weights.shape)
    for unit in np.unique(units):
        rows = np.flatnonzero(units == unit)
        gradient = np.zeros(weights.shape)
        for row in rows:
            features = with_bias(x[row : row + 1])[0].astype(np.float64)
            scores = np.exp(weights @ features)
            gradient += np.outer(scores / scores.sum() - np.eye(len(weights))[y[row]], features) / len(rows)
        total += gradient * min(1.0, clip / np.linalg.norm(gradient))
    return total


@pytest.mark.parametrize("clip", [0.15, 0.5, 100.0])
def test_head_equals_a_loop_over_units(clip: float) -> None:
    x, y, weights = _features(90, 4)
    for units in (np.arange(90), np.random.default_rng(2).integers(25, size=90)):
        ours = SoftmaxHead(x, y, units).gradient(weights, clip=clip)
        assert np.abs(ours - _head_loop(x, y, units, weights, clip)).max() < 1e-5


def test_head_unit_adds_at_most_the_clip() -> None:
    x, y, weights = _features(8, 4)
    one = SoftmaxHead(x, y, np.zeros(8, dtype=np.int64)).gradient(100 * weights, clip=0.15)
    assert np.linalg.norm(one) <= 0.15
    open_ = SoftmaxHead(x, y, np.zeros(8, dtype=np.int64)).gradient(100 * weights, clip=None)
    assert np.linalg.norm(open_) > 0.15


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, 3e38])
def test_head_survives_a_row_that_is_not_finite_or_overflows(value: float) -> None:
    x, y, weights = _features(5, 4)
    without = SoftmaxHead(np.delete(x, 2, 0), np.delete(y, 2), np.arange(4)).gradient(weights, clip=0.3)
    x[2, 3] = value
    found = SoftmaxHead(x, y, np.arange(5)).gradient(weights, clip=0.3)
    assert np.linalg.norm(found - without) <= 0.3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("models"))


def _model(folder: Path) -> TextModel:
    torch.manual_seed(3)
    model = TextModel(folder, classes=3, rank=4, alpha=4.0, device=CPU)
    model._dtype = torch.float32  # the loop is exact only in float32
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.requires_grad:
                value.copy_(torch.randn_like(value) * (0.2 if "encoder" in name else 1.0))
    return model


def _step(
    model: TextModel, folder: Path, chosen: list[int], *, rows_per_unit: int, clip: float
) -> dict[str, torch.Tensor]:
    """The clipped sum as the private step leaves it, read back from an SGD step of rate 1 without noise."""
    data = make_data(12, rows_per_unit=rows_per_unit)
    rows = token_rows(Tokens(folder)(data.texts), np.array(data.labels), np.array(data.units))
    trainable = {name: value for name, value in model.named_parameters() if value.requires_grad}
    before = {name: value.detach().clone() for name, value in trainable.items()}
    optimizer = torch.optim.SGD(trainable.values(), lr=1.0)
    stepper = PrivateStepper(model, optimizer, sigma=0.0, clip=clip, expected_batch=1.0, source=NoiseSource())
    for index, units in micro_batches(rows, np.array(chosen, dtype=np.int64), batch_tokens=40):
        logits = stepper.model(*pad([rows.ids[row] for row in index], CPU))
        losses = torch.nn.functional.cross_entropy(
            logits, torch.from_numpy(rows.labels[index]), reduction="none"
        )
        stepper.accumulate(losses, torch.from_numpy(units))
    stepper.finish()
    return {name: before[name] - value.detach() for name, value in trainable.items()}


def _lora_loop(
    model: TextModel, folder: Path, chosen: list[int], *, rows_per_unit: int, clip: float
) -> dict[str, torch.Tensor]:
    data = make_data(12, rows_per_unit=rows_per_unit)
    ids = Tokens(folder)(data.texts)
    trainable = {name: value for name, value in model.named_parameters() if value.requires_grad}
    total = {name: torch.zeros_like(value) for name, value in trainable.items()}
    for unit in chosen:
        index = [row for row, owner in enumerate(data.units) if owner == unit]
        losses = [
            torch.nn.functional.cross_entropy(model(*pad([ids[row]], CPU)), torch.tensor([data.labels[row]]))
            for row in index
        ]
        gradients = torch.autograd.grad(torch.stack(losses).mean(), list(trainable.values()))
        norm = torch.sqrt(sum((gradient.double() ** 2).sum() for gradient in gradients))
        factor = float(min(1.0, clip / norm))
        for name, gradient in zip(trainable, gradients, strict=True):
            total[name] += factor * gradient
    return total


@pytest.mark.parametrize("rows_per_unit", [1, 3])
@pytest.mark.parametrize("clip", [0.05, 1000.0])
def test_lora_equals_a_loop_over_units(folder: Path, rows_per_unit: int, clip: float) -> None:
    chosen = [0, 3, 4, 7, 8, 11]
    loop = _lora_loop(_model(folder), folder, chosen, rows_per_unit=rows_per_unit, clip=clip)
    ours = _step(_model(folder), folder, chosen, rows_per_unit=rows_per_unit, clip=clip)
    assert max(float(value.abs().max()) for value in loop.values()) > 1e-3
    for name, value in loop.items():
        assert float((ours[name] - value).abs().max()) < 1e-5, name


def test_a_unit_adds_the_same_whoever_else_is_in_the_batch(folder: Path) -> None:
    def step(chosen: list[int]) -> dict[str, torch.Tensor]:
        return _step(_model(folder), folder, chosen, rows_per_unit=2, clip=0.05)

    alone, others, together = step([5]), step([1, 2, 9]), step([1, 2, 5, 9])
    for name, value in together.items():
        assert float((value - others[name] - alone[name]).abs().max()) < 1e-5, name
    norm = sum(float((value**2).sum()) for value in alone.values()) ** 0.5
    assert norm <= 0.05 * (1 + 1e-5)


def test_an_empty_batch_is_a_step_of_noise_alone(folder: Path) -> None:
    model = _model(folder)
    still = _step(model, folder, [], rows_per_unit=1, clip=1.0)
    assert all(float(value.abs().max()) == 0 for value in still.values())
    model = _model(folder)
    trainable = [value for value in model.parameters() if value.requires_grad]
    before = torch.cat([value.detach().flatten() for value in trainable])
    optimizer = torch.optim.SGD(trainable, lr=1.0)
    stepper = PrivateStepper(model, optimizer, sigma=2.0, clip=0.5, expected_batch=10.0, source=NoiseSource())
    stepper.finish()
    moved = before - torch.cat([value.detach().flatten() for value in trainable])
    assert float(moved.std()) == pytest.approx(2.0 * 0.5 / 10.0, rel=0.15)
    assert abs(float(moved.mean())) < 0.02


def test_refuses_parameters_outside_the_private_optimizer(folder: Path) -> None:
    model = _model(folder)
    optimizer = torch.optim.SGD([model.head.weight], lr=1.0)
    with pytest.raises(ValueError, match="outside the private optimizer"):
        PrivateStepper(model, optimizer, sigma=1.0, clip=1.0, expected_batch=1.0, source=NoiseSource())
