"""LoRA through the whole chat model: the clipped sum equals a loop over people, and units stay whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from modeling.core import bases, planning
from modeling.core.chat_lora import ChatModel, LoraTuner
from modeling.core.chat_tokens import ChatTokens
from modeling.core.noise import NoiseSource
from modeling.core.privacy import PrivateStepper
from modeling.core.types import Plan, Recipe, Shape
from tests.core.tiny_chat import talk, write_models

CPU = torch.device("cpu")
UNITS = [7, 3, 3, 9, 5]
UNITS_SORTED = sorted(set(UNITS))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bases.path(write_models(tmp_path_factory.mktemp("models")), "smollm2-135m")


def silent_plan(clip: float) -> Plan:
    """A plan whose noise is zero, to look at the clipped sum itself."""
    recipe = Recipe(task="chat", base="smollm2-135m", method="lora", epsilon=8.0)
    plan = planning.plan(recipe, Shape(160, 40, rows=240))
    train = replace(plan.mechanisms[0], sigma=0.0, clip=clip)
    return replace(plan, mechanisms=(train, *plan.mechanisms[1:]))


def tuner(folder: Path, *, clip: float, units: Sequence[int] = UNITS) -> LoraTuner:
    torch.manual_seed(1)
    model = ChatModel(folder, rank=2, alpha=2.0, device=CPU, dtype=torch.float32)
    with torch.no_grad():
        for value in model.parameters():
            if value.requires_grad:
                value.add_(0.1 * torch.randn(value.shape))
    tokens = ChatTokens(folder)
    conversations = [tokens.encode(talk("red", rounds=1 + index % 3)) for index in range(len(units))]
    return LoraTuner(silent_plan(clip), model, units, conversations, NoiseSource())


def looped(folder: Path) -> dict[int, torch.Tensor]:
    """Each person's gradient by a pass of its own, without hooks."""
    plain = tuner(folder, clip=1.0)
    found = {}
    named = [value for value in plain.module.parameters() if value.requires_grad]
    for unit in sorted(set(UNITS)):
        rows = [row for row, owner in enumerate(plain._rows.labels) if UNITS[int(owner)] == unit]
        hidden, targets, weight, _ = plain._hidden(plain.module, np.array(rows), None)
        logits = hidden @ plain.module.vocabulary.T
        losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        loss = (losses * weight).sum() / len(rows)
        found[unit] = torch.cat([part.flatten() for part in torch.autograd.grad(loss, named)])
    return found


def clipped(folder: Path, clip: float) -> torch.Tensor:
    mine = tuner(folder, clip=clip)
    mine._batches.accumulate(mine._numbers(UNITS_SORTED), mine.stepper, mine.losses)
    assert isinstance(mine.stepper, PrivateStepper)
    return torch.cat([value.summed_grad.flatten() for value in mine.stepper.optimizer.params])


@pytest.mark.parametrize("clip", [0.05, 100.0])
def test_the_clipped_sum_equals_a_loop(folder: Path, clip: float) -> None:
    rows = looped(folder).values()
    total = sum(row * min(1.0, clip / float(row.norm())) for row in rows)
    assert isinstance(total, torch.Tensor)
    quick = clipped(folder, clip)
    assert float((quick - total).norm() / total.norm()) < 1e-5 + 2e-6 / clip  # Opacus adds 1e-6 to a norm


def test_one_person_moves_the_sum_by_at_most_the_clip(folder: Path) -> None:
    mine = tuner(folder, clip=0.05)
    mine._batches.accumulate(mine._numbers([3]), mine.stepper, mine.losses)  # two conversations
    assert isinstance(mine.stepper, PrivateStepper)
    total = torch.cat([value.summed_grad.flatten() for value in mine.stepper.optimizer.params])
    assert float(total.norm()) <= 0.05 + 1e-6


def test_a_part_that_does_not_fit_is_split_with_the_same_sum(folder: Path) -> None:
    whole, parts = tuner(folder, clip=0.05), tuner(folder, clip=0.05)
    parts._batches.tokens = 1  # every person alone
    sums = []
    for one in (whole, parts):
        one._batches.accumulate(one._numbers(UNITS_SORTED), one.stepper, one.losses)
        assert isinstance(one.stepper, PrivateStepper)
        sums.append(torch.cat([value.summed_grad.flatten() for value in one.stepper.optimizer.params]))
    torch.testing.assert_close(sums[0], sums[1], rtol=1e-4, atol=1e-7)
