"""Final hidden states of the assistant's tokens under the frozen base model, cached in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModelForCausalLM

from modeling.core.chat_adapter import Answers
from modeling.core.chat_tokens import Conversation

_BATCH_TOKENS = 2048
Indices = npt.NDArray[np.int64]


def quick_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the processor multiplies it directly (three times the speed), else float32."""
    if device.type == "cuda":
        return torch.bfloat16
    able = torch.cpu.get_capabilities()
    return torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") else torch.float32


class FrozenChat:
    """A base model that is only read: hidden states in, vocabulary matrix out."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.device = device
        self._model: Any = AutoModelForCausalLM.from_pretrained(
            str(folder), local_files_only=True, dtype=quick_dtype(device)
        )
        self._model.to(device).eval().requires_grad_(False)
        self.vocabulary: torch.Tensor = self._model.get_output_embeddings().weight
        self.width = int(self._model.config.hidden_size)

    def states(self, conversations: Sequence[Conversation]) -> Iterator[tuple[int, torch.Tensor]]:
        """(index, hidden [m, d] of the tokens before each answer token), in order of length, batch by batch."""
        order = sorted(range(len(conversations)), key=lambda index: len(conversations[index].ids))
        for batch in _batches(order, conversations):
            hidden = self._forward([conversations[index].ids for index in batch])
            for row, index in enumerate(batch):
                before = torch.from_numpy(conversations[index].answers - 1).to(self.device)
                yield index, hidden[row, before].clone()

    def _forward(self, ids: Sequence[Indices]) -> torch.Tensor:
        """Padded on the right, where a causal model never looks back from."""
        padded = np.zeros((len(ids), max(map(len, ids))), dtype=np.int64)
        for row, line in enumerate(ids):
            padded[row, : len(line)] = line
        tokens = torch.from_numpy(padded).to(self.device)
        hidden: torch.Tensor = self._model.base_model(input_ids=tokens, use_cache=False).last_hidden_state
        return hidden


def _batches(order: Sequence[int], conversations: Sequence[Conversation]) -> Iterator[list[int]]:
    batch: list[int] = []
    for index in order:
        if batch and len(conversations[index].ids) * (len(batch) + 1) > _BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


class Cache:
    """Cached answers of many conversations, and batches of them by unit."""

    def __init__(self, units: Sequence[int], conversations: Sequence[Conversation]) -> None:
        """`units[i]` says whose conversation i is."""
        self._states: dict[int, torch.Tensor] = {}
        self._targets = [torch.from_numpy(item.ids[item.answers]) for item in conversations]
        self._of_unit: dict[int, list[int]] = {}
        for index, unit in enumerate(units):
            self._of_unit.setdefault(unit, []).append(index)

    def put(self, index: int, hidden: torch.Tensor) -> None:
        """Hidden states [m, d] of conversation `index`."""
        self._states[index] = hidden

    def answers(
        self, units: Sequence[int] | Indices, *, tokens: int | None, choice: np.random.Generator
    ) -> Answers | None:
        """The answers of these units, `tokens` random ones of a conversation at most; None if there are none."""
        hidden, targets, owner, weight = [], [], [], []
        for unit in sorted(int(unit) for unit in units):
            rows = [index for index in self._of_unit.get(unit, ()) if len(self._targets[index])]
            for index in rows:
                kept = _some(len(self._targets[index]), tokens, choice)
                hidden.append(self._states[index][kept])
                targets.append(self._targets[index][kept])
                owner.append(np.full(len(kept), unit))
                weight.append(torch.full((len(kept),), 1.0 / (len(kept) * len(rows))))
        if not hidden:
            return None
        stacked = torch.cat(hidden)
        device = stacked.device
        return Answers(
            stacked, torch.cat(targets).to(device), np.concatenate(owner), torch.cat(weight).to(device)
        )


def _some(count: int, limit: int | None, choice: np.random.Generator) -> torch.Tensor:
    if limit is None or count <= limit:
        return torch.arange(count)
    return torch.from_numpy(np.sort(choice.choice(count, size=limit, replace=False)))
