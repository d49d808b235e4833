"""Out of memory means smaller micro-batches: the same gradients, the same noise, the same charges."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modeling.core import ghost, memory, planning, privacy
from modeling.core.heads import classify_steps
from modeling.core.memory import Indices, MicroBatches, TokenRows, expand, split, token_budget
from modeling.core.noise import Floats, NoiseSource
from modeling.core.privacy import GhostStepper, PrivateStepper, Stepper
from modeling.core.text_model import TextModel
from modeling.core.training import train
from modeling.core.types import Charge, CoreError, Progress, Trained
from tests.core.test_ghost import CHOSEN, UNEVEN, folder, losses_of, make_model, make_rows, tokens, trained
from tests.core.tiny_text import make_data, make_recipe, shape_of

__all__ = ["folder", "tokens"]  # fixtures

ERRORS = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    MemoryError(),
)


class CountingNoise(NoiseSource):
    """The real noise, and how much of it was drawn."""

    drawn = 0

    def normal(self, count: int) -> Floats:
        self.drawn += count
        return super().normal(count)


def stepped(
    model: TextModel, rows: TokenRows, *, sigma: float = 0.0, most_rows: int = 1000, error: Any = None
) -> tuple[dict[str, torch.Tensor], CountingNoise, MicroBatches]:
    """One step over CHOSEN in one micro-batch, on a device that holds the activations of `most_rows` rows."""
    before = {name: value.detach().clone() for name, value in trained(model).items()}
    optimizer = torch.optim.SGD(trained(model).values(), lr=1.0)
    kind: Callable[..., Stepper] = PrivateStepper if "A" in "".join(before) else GhostStepper
    source = CountingNoise()
    stepper = kind(model, optimizer, sigma=sigma, clip=0.05, expected_batch=1.0, source=source)

    def losses(index: Indices) -> torch.Tensor:
        found = losses_of(stepper.model, rows, index)  # memory runs out at the end of the forward pass
        if len(index) > most_rows:
            raise error
        return found

    batches = MicroBatches(rows, tokens=4096)
    batches.accumulate(np.array(CHOSEN), stepper, losses)
    stepper.finish()
    return {name: before[name] - value.detach() for name, value in trained(model).items()}, source, batches


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(float((one[name] - other[name]).abs().max()) < 1e-6 for name in one)


@pytest.mark.parametrize("rank", [0, 4], ids=["full", "lora"])
@pytest.mark.parametrize("error", ERRORS, ids=["cuda", "cpu", "python"])
def test_a_split_micro_batch_gives_the_same_step(
    folder: Path, tokens: list[list[int]], rank: int, error: BaseException
) -> None:
    rows = make_rows(tokens, UNEVEN)
    whole, _, _ = stepped(make_model(folder, rank=rank), rows, sigma=0.0)
    parts, _, batches = stepped(make_model(folder, rank=rank), rows, most_rows=5, error=error)
    assert same(whole, parts)
    assert max(float(value.abs().max()) for value in whole.values()) > 1e-3
    assert batches.tokens < 4096  # it remembers
    _, often, _ = stepped(make_model(folder, rank=rank), rows, sigma=1.0, most_rows=5, error=error)
    _, once, _ = stepped(make_model(folder, rank=rank), rows, sigma=1.0)
    assert often.drawn == once.drawn == sum(value.numel() for value in whole.values())


@pytest.mark.parametrize(
    ("rank", "owner", "name"),
    [
        (0, ghost._LayerGradient, "parts"),
        (0, ghost._LayerGradient, "squares"),
        (4, privacy.UnitOptimizer, "_rows"),
    ],
)
def test_nothing_is_added_twice_when_clipping_breaks_off(
    folder: Path, tokens: list[list[int]], rank: int, owner: type, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory runs out after some layers were clipped and before the last one."""
    rows = make_rows(tokens, UNEVEN)
    whole, _, _ = stepped(make_model(folder, rank=rank), rows)
    calls, real = [0], getattr(owner, name)

    def once(*arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == 4:
            raise ERRORS[0]
        return real(*arguments)

    monkeypatch.setattr(owner, name, once)
    parts, _, _ = stepped(make_model(folder, rank=rank), rows)
    assert calls[0] > 4
    assert same(whole, parts)


def test_a_job_that_runs_out_of_memory_charges_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_data(300)
    plan = planning.plan(make_recipe("lora", max_steps=3), shape_of(data))

    def run() -> tuple[list[Charge], list[float | None]]:
        events = list(train(plan, data, models_dir=folder.parent))
        assert isinstance(events[-1], Trained)
        charges = [event for event in events if isinstance(event, Charge)]
        return charges, [event.epsilon for event in events if isinstance(event, Progress)]

    expected = run()
    real, refused = classify_steps._Run._losses, []

    def losses(run_: Any, index: Indices) -> torch.Tensor:
        if len(index) > 40:
            refused.append(len(index))
            raise ERRORS[0]
        return real(run_, index)

    monkeypatch.setattr(classify_steps._Run, "_losses", losses)
    assert run() == expected
    assert refused


def test_a_unit_that_does_not_fit_ends_the_job_with_a_reason(folder: Path, tokens: list[list[int]]) -> None:
    with pytest.raises(CoreError) as refusal:
        stepped(make_model(folder), make_rows(tokens, UNEVEN), most_rows=4, error=ERRORS[0])
    assert refusal.value.code == "out_of_memory"  # unit 0 owns five rows


def test_other_errors_are_not_swallowed(folder: Path, tokens: list[list[int]]) -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        stepped(make_model(folder), make_rows(tokens, UNEVEN), most_rows=4, error=RuntimeError("shapes"))


def test_micro_batches_keep_to_their_tokens_and_units_whole(tokens: list[list[int]]) -> None:
    rows = make_rows(tokens, UNEVEN)
    parts = list(split(rows, np.arange(12), tokens=30))
    assert sorted(unit for part in parts for unit in part) == list(range(12))
    for part in parts:
        index, owner = expand(rows, part)
        assert len(index) * max(len(rows.ids[row]) for row in index) <= 30 or len(part) == 1
        assert all((unit == UNEVEN).sum() == (owner == unit).sum() for unit in part)


def test_the_budget_follows_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = token_budget(torch.device("cpu"), layers=6, width=384, heads=12, longest=64)
    assert cpu == memory._CPU_TOKENS
    assert token_budget(torch.device("cpu"), layers=24, width=1024, heads=16, longest=256) < cpu
    gpu = torch.device("cuda", 0)
    free = {}
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[0], 80 << 30))
    found = []
    for gigabytes in (1, 8, 80):
        free[0] = gigabytes << 30
        found.append(token_budget(gpu, layers=6, width=384, heads=12, longest=64))
    assert found[0] < found[1] <= found[2] == memory._GPU_TOKENS
