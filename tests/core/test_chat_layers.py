"""Adapters in the top layers: gradients equal a loop over whole conversations, and nothing before an answer changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from modeling.core import bases, chat_layers
from modeling.core.chat_adapter import clipped_sum
from modeling.core.chat_hidden import FrozenChat
from modeling.core.chat_layers import LayerCache, TopLayers
from modeling.core.chat_tokens import ChatTokens, Conversation
from tests.core.tiny_chat import talk, write_models

TOP, RANK = 2, 3
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bases.path(write_models(tmp_path_factory.mktemp("models"), layers=4), "smollm2-135m")


class Parts:
    """Six conversations of five people: unit 2 has two, and two of them go on for several rounds."""

    def __init__(self, folder: Path, *, limit_bytes: int = 1 << 20) -> None:
        talks = [talk("red", rounds=1 + (number in (1, 4)), system="hello " * 9) for number in range(6)]
        talks[3] = talk("blue", system="")
        self.units = [0, 1, 2, 2, 3, 4]
        tokens = ChatTokens(folder)
        self.conversations = [tokens.encode(turns) for turns in talks]
        frozen = FrozenChat(folder, CPU, dtype=torch.float32)
        self.cache = LayerCache(self.units, self.conversations, limit_bytes=limit_bytes)
        for index, read in frozen.read(self.conversations, top=TOP):
            self.cache.put(index, read)
        self.model = TopLayers(frozen, top=TOP, rank=RANK)
        self.model.flat += 0.1 * torch.randn(len(self.model.flat), generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def parts(folder: Path) -> Parts:
    return Parts(folder)


class Loop:
    """The same loss computed the plain way: the whole conversation through the whole model, one turn at a time."""

    def __init__(self, folder: Path, model: TopLayers) -> None:
        self.model: Any = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
        self.model.requires_grad_(False)
        self.flat = model.flat.clone().requires_grad_()
        self.opened = 0
        at = 0
        for name, value in model.tensors().items():
            size, path = value.size, name.removeprefix("lora.")[:-2]
            part = self.flat[at : at + size].view(value.shape)
            at += size
            if name.endswith(".A"):
                down = part
            else:
                self.model.get_submodule(path).register_forward_hook(self._hook(down, part))

    def _hook(self, down: torch.Tensor, up: torch.Tensor) -> Any:
        def add(_module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
            active = (torch.arange(output.shape[1]) >= self.opened)[None, :, None]
            return output + active * (inputs[0] @ down.T @ up.T)

        return add

    def loss(self, item: Conversation) -> torch.Tensor:
        """The mean over the answer tokens."""
        parts = []
        for turn in item.turns:
            self.opened = turn.open
            logits = self.model(torch.from_numpy(item.ids[: turn.last])[None]).logits[0]
            targets = torch.from_numpy(item.ids[turn.first : turn.last])
            parts.append(
                torch.nn.functional.cross_entropy(
                    logits[turn.first - 1 : turn.last - 1], targets, reduction="none"
                )
            )
        return torch.cat(parts).mean()

    def gradient(self, items: list[Conversation]) -> torch.Tensor:
        """Of one person's loss: the mean over their conversations."""
        self.flat.grad = None
        torch.stack([self.loss(item) for item in items]).mean().backward()
        assert self.flat.grad is not None
        return self.flat.grad.clone()


def unit_rows(parts: Parts) -> torch.Tensor:
    """Gradients of units in ascending order."""
    examples = list(parts.cache.whole(range(5)))
    found = {}
    for batch in chat_layers.micro_batches(examples):
        rows = torch.cat(list(chat_layers.unit_gradients(parts.model, batch)))
        found.update(zip(sorted({item.owner for item in batch}), rows, strict=True))
    return torch.stack([found[unit] for unit in range(5)])


def test_gradients_of_units_equal_a_loop(folder: Path, parts: Parts) -> None:
    quick, loop = unit_rows(parts), Loop(folder, parts.model)
    for unit in range(5):
        mine = [item for item, owner in zip(parts.conversations, parts.units, strict=True) if owner == unit]
        slow = loop.gradient(mine)
        assert float((quick[unit] - slow).norm() / slow.norm()) < 1e-5


def test_the_clipped_sum_equals_a_loop(folder: Path, parts: Parts) -> None:
    rows = unit_rows(parts)
    norms = rows.norm(dim=1)
    clip = float(norms.median())
    total = sum(row.double() * min(1.0, clip / float(norm)) for row, norm in zip(rows, norms, strict=True))
    examples = list(parts.cache.whole(range(5)))
    quick = sum(clipped_sum(block, clip) for block in chat_layers.unit_gradients(parts.model, examples))
    assert np.linalg.norm(quick - np.asarray(total)) / np.linalg.norm(quick) < 1e-5


def test_a_units_gradient_does_not_depend_on_the_others(parts: Parts) -> None:
    alone = torch.cat(list(chat_layers.unit_gradients(parts.model, list(parts.cache.whole([2])))))
    torch.testing.assert_close(alone[0], unit_rows(parts)[2], rtol=1e-4, atol=1e-6)


def test_quality_is_the_loss_of_the_loop(folder: Path, parts: Parts) -> None:
    scores = chat_layers.quality(parts.model, list(parts.cache.whole(range(5))))
    loop = Loop(folder, parts.model)
    with torch.no_grad():
        expected = float(loop.loss(parts.conversations[1]))
    assert scores.shape == (5, 2)
    assert scores[1, 1] == pytest.approx(expected, rel=1e-5)


def test_the_expected_training_loss_is_the_mean_over_answer_tokens(parts: Parts) -> None:
    """A turn is drawn by its tokens: over many draws every answer token of a conversation counts alike."""
    choice = np.random.default_rng(0)
    counts: dict[int, float] = {}
    for _ in range(400):
        (example,) = parts.cache.training([3], tokens=2, choice=choice)
        for place in example.places:
            key = example.past.shape[3] + int(place)
            counts[key] = counts.get(key, 0.0) + example.weight
    shares = np.array(list(counts.values())) / 400
    assert len(shares) == len(parts.conversations[4].answers)
    np.testing.assert_allclose(shares, 1 / len(shares), atol=0.04)


def test_what_does_not_fit_into_memory_is_read_back_from_the_sealed_file(folder: Path, parts: Parts) -> None:
    spilled = Parts(folder, limit_bytes=4096)
    assert spilled.cache.store.memory_bytes <= 4096
    assert spilled.cache.store.file_bytes > 0
    assert parts.cache.store.file_bytes == 0
    torch.testing.assert_close(unit_rows(spilled), unit_rows(parts))
