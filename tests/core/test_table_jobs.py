"""Table heads: what they learn, charge and resume from, and that no unit moves them by more than the clip."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from modeling.core import accounting, heads
from modeling.core.noise import NoiseSource
from modeling.core.privacy import PrivateStepper
from modeling.core.softmax_head import SoftmaxHead, with_bias
from modeling.core.table_features import TableFeatures
from modeling.core.table_network import Network, NetworkRun, class_loss, number_loss
from modeling.core.table_predictor import TableModel
from modeling.core.table_rows import HUBER, HuberHead, TableRows
from modeling.core.training import train
from modeling.core.types import CannotTrain, Charge, Checkpoint, HeldOut, Phase, Progress, Trained
from tests.core.tiny_table import FEATURES, NOWHERE, make_plan, make_table, result_of, run, until_step

DATA = make_table()
KINDS = [
    ("classification", "additive"),
    ("classification", "network"),
    ("regression", "additive"),
    ("regression", "network"),
]
STEPS: dict[str, Any] = {"additive": None, "network": 20}


@pytest.mark.parametrize(("task", "method"), KINDS)
@pytest.mark.parametrize("epsilon", [8.0, None])
def test_it_works(task: str, method: str, epsilon: float | None) -> None:
    steps = None if epsilon is None and method == "network" else STEPS[method]
    plan = make_plan(DATA, task=task, method=method, epsilon=epsilon, max_steps=steps and 60)
    assert plan.method == method
    assert heads.load(task, method, base="tabular").task == task
    events = run(plan, DATA)
    trained = result_of(events)
    base = np.mean([DATA.labels[row] for row in range(len(DATA.units)) if row % 5 == 4])
    least = max(base, 1 - base) + 0.05 if task == "classification" else 0.85
    assert trained.metrics["accuracy"] > least
    model = TableModel(trained.tensors, trained.config)
    cells = {"age": [50, 50], "home": ["rents", "owns"], "amount": [0, 10]}
    if task == "classification":
        assert model.probabilities(cells, 2)[1, 1] > model.probabilities(cells, 2)[0, 1]
    else:
        low, high = model.values(cells, 2)
        assert 100 <= low["low"] <= low["value"] < high["value"] <= high["high"] <= 300
    if epsilon is None:
        assert not any(isinstance(event, Charge) for event in events)
    else:
        assert plan.epsilon is not None
        assert plan.epsilon <= 8.0
        assert plan.epsilon == accounting.epsilon(plan.mechanisms, plan.delta)


@pytest.mark.parametrize(("task", "method"), KINDS)
def test_charges_come_before_what_they_pay_for_and_sum_to_the_plan(task: str, method: str) -> None:
    plan = make_plan(DATA, task=task, method=method, max_steps=16)
    paid: dict[str, int] = {}
    for event in run(plan, DATA):
        if isinstance(event, Charge):
            assert event.first == paid.get(event.mechanism, 0)
            paid[event.mechanism] = event.first + event.count
        elif isinstance(event, Checkpoint | Progress):
            assert event.step == paid["train"]
        elif isinstance(event, HeldOut):
            assert paid["held_out"] > 0
    assert paid == {mechanism.name: mechanism.count for mechanism in plan.mechanisms}
    assert {"train", "held_out", "calibration", "fairness"} == paid.keys()


@pytest.mark.parametrize(("task", "method"), KINDS)
def test_a_run_resumes_with_what_remains(task: str, method: str) -> None:
    plan = make_plan(DATA, task=task, method=method, max_steps=20)
    first = train(plan, DATA, models_dir=NOWHERE)
    checkpoint, taken = until_step(first, 12)
    spent: dict[str, int] = {}
    for event in taken:
        if isinstance(event, Charge):
            spent[event.mechanism] = event.first + event.count
    # The next block was charged too, and is lost with the attempt: it is not run again for free.
    lost = next(event for event in first if isinstance(event, Charge) and event.mechanism == "train")
    spent["train"] = lost.first + lost.count
    again = run(plan, DATA, resume=checkpoint, spent=spent)
    charged = sum(event.count for event in again if isinstance(event, Charge) and event.mechanism == "train")
    assert charged == plan.steps - spent["train"]
    for name, value in checkpoint.tensors.items():
        assert "random" not in name
        assert np.isfinite(value).all()
    assert result_of(again).steps == plan.steps
    with pytest.raises(Exception, match="no checkpoint is left"):
        run(plan, DATA, spent={"train": plan.steps})


def _loop(x: np.ndarray, residual: Any, units: np.ndarray, weights: np.ndarray, clip: float) -> np.ndarray:
    """One unit after another in float64, its gradient written out."""
    total = np.zeros(weights.shape)
    for unit in np.unique(units):
        rows = np.flatnonzero(units == unit)
        gradient = sum(np.outer(residual(row, weights @ x[row]), x[row]) for row in rows) / len(rows)
        total += gradient * min(1.0, clip / np.linalg.norm(gradient))
    return total


@pytest.mark.parametrize("rows_a_unit", [1, 3])
def test_linear_sums_equal_a_loop_over_units(rows_a_unit: int) -> None:
    data = make_table(90, rows_a_unit=rows_a_unit)
    features = TableFeatures(FEATURES)(data.cells, 90)
    x, units = with_bias(features).astype(np.float64), np.array(data.units)
    labels, places = np.array(data.labels), (np.array(data.targets) - 200) / 100
    random = np.random.default_rng(1)
    weights = random.normal(size=(2, x.shape[1])).astype(np.float32)

    def softmax_residual(row: int, scores: np.ndarray) -> np.ndarray:
        shares = np.exp(scores - scores.max())
        return np.asarray(shares / shares.sum() - np.eye(2)[labels[row]])

    def huber_residual(row: int, scores: np.ndarray) -> np.ndarray:
        return np.clip(scores - places[row], -HUBER, HUBER)

    ours = SoftmaxHead(features, labels, units).gradient(weights, clip=0.4)
    assert np.abs(ours - _loop(x, softmax_residual, units, weights, 0.4)).max() < 1e-5
    ours = HuberHead(features, places, units).gradient(3 * weights[:1], clip=0.4)
    assert np.abs(ours - _loop(x, huber_residual, units, 3 * weights[:1], 0.4)).max() < 1e-5
    # The bound is a bound: one unit alone, with weights far off.
    alone = HuberHead(features[:3], places[:3], np.zeros(3, dtype=np.int64)).gradient(
        900 * weights[:1], clip=0.2
    )
    assert np.linalg.norm(alone) <= 0.2


@pytest.mark.parametrize("loss", [class_loss, number_loss])
def test_the_networks_sum_equals_a_loop_over_units(loss: Any) -> None:
    data = make_table(24, rows_a_unit=2)
    x = torch.from_numpy(TableFeatures(FEATURES)(data.cells, 24))
    answers = torch.tensor(
        data.labels if loss is class_loss else np.array(data.targets, dtype=np.float32) / 300
    )
    units = torch.tensor(data.units)
    torch.manual_seed(0)
    module = Network(x.shape[1], 8, 2 if loss is class_loss else 1)
    nn.init.normal_(module.out.weight)
    total = {name: torch.zeros_like(value) for name, value in module.named_parameters()}
    for unit in units.unique():
        rows = units == unit
        module.zero_grad()
        loss(module(x[rows]), answers[rows]).mean().backward()
        found = {
            name: value.grad.clone() for name, value in module.named_parameters() if value.grad is not None
        }
        norm = torch.sqrt(sum((one.square().sum() for one in found.values()), torch.zeros(())))
        for name, one in found.items():
            total[name] += one * min(1.0, 0.3 / float(norm))
    before = {name: value.detach().clone() for name, value in module.named_parameters()}
    descent = torch.optim.SGD(module.parameters(), lr=1.0)
    stepper = PrivateStepper(
        module, descent, sigma=0.0, clip=0.3, expected_batch=1.0, source=NoiseSource()
    )  # fmt: skip
    module.zero_grad(set_to_none=True)
    for part in (units < 5, units >= 5):
        stepper.accumulate(loss(stepper.model(x[part]), answers[part]), units[part])
    stepper.finish()
    for name, value in module.named_parameters():
        assert torch.allclose(before[name] - value, total[name], atol=1e-5)


def test_a_network_takes_empty_batches_as_steps_of_noise() -> None:
    plan = make_plan(DATA, method="network", max_steps=3)
    rows = TableRows(
        np.zeros((0, 29), dtype=np.float32), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), {}
    )
    from modeling.core.spending import Spending

    fit = NetworkRun(
        plan, rows, outputs=2, loss=class_loss, spending=Spending(plan, {}), source=NoiseSource(), resume=None
    )  # fmt: skip
    before = fit.tensors()

    class Nothing:
        stops: list[int] = []

        def run(self, step: int, outputs: Any) -> Any:
            return iter(())

    assert [
        event.step
        for event in fit.events(Nothing(), lambda: before["network.out.bias"])
        if isinstance(event, Progress)
    ] == [1, 2, 3]
    assert not np.array_equal(before["network.out.bias"], fit.tensors()["network.out.bias"])
    assert all(np.isfinite(value).all() for value in fit.tensors().values())


def test_table_and_text_methods_do_not_mix() -> None:
    for method in ("head", "lora"):
        with pytest.raises(CannotTrain):
            make_plan(DATA, method=method)
    with pytest.raises(CannotTrain):
        heads.load("classification", "additive", base="minilm-l6")


def test_too_few_people_are_told_how_many_would_do() -> None:
    few = make_table(150)
    with pytest.raises(CannotTrain, match="Bring at least"):
        make_plan(few, epsilon=1.0)
    assert make_plan(make_table(6000), epsilon=1.0).notes  # the control


def test_what_cannot_be_read_counts_as_missing_and_breaks_nothing() -> None:
    cells = {**DATA.cells, "amount": [None if at % 2 else "?" for at in range(len(DATA.units))]}
    from dataclasses import replace

    trained = result_of(run(make_plan(DATA), replace(DATA, cells=cells)))
    assert np.isfinite(trained.tensors["head.weight"]).all()


def test_only_phases_come_before_the_first_charge() -> None:
    events = train(make_plan(DATA), DATA, models_dir=NOWHERE)
    kinds = [type(event) for event in islice(events, 2)]
    assert kinds == [Phase, Charge]
    assert not any(isinstance(event, Trained) for event in islice(events, 3))
