"""Ghost clipping of a whole encoder: the clipped sum equals a loop over units, however many rows a unit owns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from modeling.core.encoder import Tokens, pad
from modeling.core.memory import TokenRows, micro_batches, token_rows
from modeling.core.noise import NoiseSource
from modeling.core.privacy import GhostStepper, PrivateStepper, Stepper
from modeling.core.text_model import TextModel
from tests.core.tiny_text import make_base, make_data

CPU = torch.device("cpu")
EVEN = np.arange(24)
UNEVEN = np.array([0, 0, 0, 0, 0, 1, 2, 2, 3, 4, 4, 4, 5, 6, 6, 7, 8, 8, 8, 8, 9, 10, 11, 11])  # 1 to 5 rows
CHOSEN = [0, 1, 3, 4, 7, 8, 11]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def tokens(folder: Path) -> list[list[int]]:
    texts = make_data(24).texts
    return Tokens(folder)([f"{text} {texts[0]}"[: 24 + index] for index, text in enumerate(texts)])


def make_rows(tokens: list[list[int]], units: np.ndarray) -> TokenRows:
    return token_rows(tokens, np.array(make_data(24).labels), units)


def make_model(
    folder: Path, *, rank: int = 0, tables: bool = False, dtype: torch.dtype = torch.float32
) -> TextModel:
    torch.manual_seed(3)
    model = TextModel(folder, classes=3, rank=rank, device=CPU, tables=tables)
    model._dtype = dtype
    with torch.no_grad():
        for value in trained(model).values():
            value.add_(torch.randn_like(value), alpha=0.2)
    return model


def trained(model: TextModel) -> dict[str, torch.nn.Parameter]:
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def losses_of(model: torch.nn.Module, rows: TokenRows, index: np.ndarray) -> torch.Tensor:
    logits = model(*pad([rows.ids[row] for row in index], CPU))
    return torch.nn.functional.cross_entropy(logits, torch.from_numpy(rows.labels[index]), reduction="none")


def clipped_sum(
    model: TextModel, rows: TokenRows, chosen: list[int], *, clip: float, batch_tokens: int = 60
) -> dict[str, torch.Tensor]:
    """What the private step without noise moves the parameters by, at rate 1 and an expected batch of 1."""
    before = {name: value.detach().clone() for name, value in trained(model).items()}
    optimizer = torch.optim.SGD(trained(model).values(), lr=1.0)
    kind: Callable[..., Stepper] = PrivateStepper if "A" in "".join(before) else GhostStepper
    more = {} if kind is PrivateStepper else {"fast": model.fast}
    stepper = kind(model, optimizer, sigma=0.0, clip=clip, expected_batch=1.0, source=NoiseSource(), **more)
    for index, units in micro_batches(rows, np.array(chosen, dtype=np.int64), batch_tokens=batch_tokens):
        stepper.accumulate(losses_of(stepper.model, rows, index), torch.from_numpy(units))
    stepper.finish()
    return {name: before[name] - value.detach() for name, value in trained(model).items()}


def loop(model: TextModel, rows: TokenRows, chosen: list[int], *, clip: float) -> dict[str, torch.Tensor]:
    """One unit after another, each row alone, with the gradient written out."""
    values = trained(model)
    total = {name: torch.zeros_like(value) for name, value in values.items()}
    for unit in chosen:
        owned = np.arange(rows.starts[unit], rows.starts[unit + 1])
        loss = torch.cat([losses_of(model, rows, owned[i : i + 1]) for i in range(len(owned))]).mean()
        gradients = torch.autograd.grad(loss, list(values.values()))
        norm = torch.sqrt(sum((gradient.double() ** 2).sum() for gradient in gradients))
        for name, gradient in zip(values, gradients, strict=True):
            total[name] += float(min(1.0, clip / norm)) * gradient
    return total


def length(values: dict[str, torch.Tensor]) -> float:
    return float(torch.sqrt(sum((value.double() ** 2).sum() for value in values.values())))


@pytest.mark.parametrize("units", [EVEN, UNEVEN], ids=["one row a unit", "one to five rows a unit"])
@pytest.mark.parametrize("tables", [False, True])
@pytest.mark.parametrize("clip", [0.05, 1000.0])
def test_the_clipped_sum_equals_a_loop_over_units(
    folder: Path, tokens: list[list[int]], units: np.ndarray, tables: bool, clip: float
) -> None:
    rows = make_rows(tokens, units)
    theirs = loop(make_model(folder, tables=tables), rows, CHOSEN, clip=clip)
    ours = clipped_sum(make_model(folder, tables=tables), rows, CHOSEN, clip=clip)
    assert any("word_embeddings" in name for name in theirs) == tables
    assert max(float(value.abs().max()) for value in theirs.values()) > 1e-3
    for name, value in theirs.items():
        assert float((ours[name] - value).abs().max()) < 1e-5, name


def test_long_units_are_clipped_by_their_written_out_gradient(
    folder: Path, tokens: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where inner products would cost more; in parts of one unit, and the result is the same."""
    monkeypatch.setattr("modeling.core.ghost._DIRECT_FLOATS", 1)
    rows = make_rows(tokens, np.zeros(24, dtype=np.int64))
    theirs = loop(make_model(folder), rows, [0], clip=0.05)
    ours = clipped_sum(make_model(folder), rows, [0], clip=0.05)
    assert length(ours) == pytest.approx(0.05, rel=1e-4)
    assert all(float((ours[name] - value).abs().max()) < 1e-5 for name, value in theirs.items())


def test_a_unit_adds_the_same_whoever_else_is_in_the_batch(folder: Path, tokens: list[list[int]]) -> None:
    rows = make_rows(tokens, UNEVEN)

    def step(chosen: list[int]) -> dict[str, torch.Tensor]:
        return clipped_sum(make_model(folder), rows, chosen, clip=0.05, batch_tokens=4096)

    alone, others, together = step([4]), step([0, 2, 9]), step([0, 2, 4, 9])
    for name, value in together.items():
        assert float((value - others[name] - alone[name]).abs().max()) < 1e-5, name
    assert length(alone) == pytest.approx(0.05, rel=1e-4)


def test_other_rows_may_change_without_changing_a_units_part(folder: Path, tokens: list[list[int]]) -> None:
    """The same unit beside other texts and other lengths: its part is what is left when theirs is taken away."""
    changed = [[*ids, *ids[1:-1]] if index != 9 else ids for index, ids in enumerate(tokens)]
    found = []
    for ids in (tokens, changed):
        rows = make_rows(ids, EVEN)
        both = clipped_sum(make_model(folder), rows, [9, 10, 11], clip=0.05, batch_tokens=4096)
        rest = clipped_sum(make_model(folder), rows, [10, 11], clip=0.05, batch_tokens=4096)
        found.append({name: both[name] - rest[name] for name in both})
    assert length(found[0]) == pytest.approx(0.05, rel=1e-3)
    assert all(float((found[0][name] - found[1][name]).abs().max()) < 1e-5 for name in found[0])


@pytest.mark.parametrize("rank", [0, 4], ids=["full", "lora"])
def test_bfloat16_keeps_the_bound(folder: Path, tokens: list[list[int]], rank: int) -> None:
    rows = make_rows(tokens, EVEN)
    exact = clipped_sum(make_model(folder, rank=rank), rows, CHOSEN, clip=0.05)
    short = clipped_sum(make_model(folder, rank=rank, dtype=torch.bfloat16), rows, CHOSEN, clip=0.05)
    assert any(not torch.equal(short[name], exact[name]) for name in exact)
    assert length({name: short[name] - exact[name] for name in exact}) < 0.05 * length(exact)
    for unit in CHOSEN:
        alone = length(
            clipped_sum(make_model(folder, rank=rank, dtype=torch.bfloat16), rows, [unit], clip=0.05)
        )
        assert 0.05 * 0.97 < alone <= 0.05 * (1 + 1e-5)  # asked: within 2 %; ours never passes the bound


def test_an_empty_batch_is_a_step_of_noise_alone(folder: Path, tokens: list[list[int]]) -> None:
    still = clipped_sum(make_model(folder), make_rows(tokens, EVEN), [], clip=1.0)
    assert length(still) == 0
    model = make_model(folder)
    before = torch.cat([value.detach().flatten() for value in trained(model).values()])
    optimizer = torch.optim.SGD(trained(model).values(), lr=1.0)
    stepper = GhostStepper(model, optimizer, sigma=2.0, clip=0.5, expected_batch=10.0, source=NoiseSource())
    stepper.finish()
    moved = before - torch.cat([value.detach().flatten() for value in trained(model).values()])
    assert float(moved.std()) == pytest.approx(2.0 * 0.5 / 10.0, rel=0.05)
    assert abs(float(moved.mean())) < 0.005


def test_a_unit_that_is_not_finite_adds_nothing(folder: Path, tokens: list[list[int]]) -> None:
    rows = make_rows(tokens, EVEN)
    model = make_model(folder)
    before = {name: value.detach().clone() for name, value in trained(model).items()}
    stepper = GhostStepper(
        model,
        torch.optim.SGD(before and trained(model).values(), lr=1.0),
        sigma=0.0,
        clip=0.05,
        expected_batch=1.0,
        source=NoiseSource(),
    )
    index = np.array([0, 3, 4])
    losses = losses_of(stepper.model, rows, index) * torch.tensor([1.0, float("nan"), 1.0])
    stepper.accumulate(losses, torch.from_numpy(index))
    stepper.finish()
    rest = clipped_sum(make_model(folder), rows, [0, 4], clip=0.05)
    for name, value in trained(model).items():
        assert float((before[name] - value.detach() - rest[name]).abs().max()) < 1e-5, name


def test_refuses_what_it_cannot_clip() -> None:
    def stepper(module: torch.nn.Module) -> GhostStepper:
        optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
        return GhostStepper(module, optimizer, sigma=1.0, clip=1.0, expected_batch=1.0, source=NoiseSource())

    with pytest.raises(ValueError, match="no ghost norm for Conv1d"):
        stepper(torch.nn.Conv1d(2, 2, 1))
    tied = torch.nn.Sequential(torch.nn.Linear(4, 4, bias=False), torch.nn.Linear(4, 4, bias=False))
    tied[1].weight = tied[0].weight
    with pytest.raises(ValueError, match="tied"):
        stepper(tied)
    layer = torch.nn.Linear(4, 4)
    stepper(layer)
    with pytest.raises(RuntimeError, match="ran twice"):
        layer(layer(torch.ones(2, 4)))
    with pytest.raises(ValueError, match="outside the private optimizer"):
        GhostStepper(
            layer,
            torch.optim.SGD([layer.weight], lr=1.0),
            sigma=1.0,
            clip=1.0,
            expected_batch=1.0,
            source=NoiseSource(),
        )
