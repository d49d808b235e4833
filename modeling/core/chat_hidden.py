"""Reading conversations once through the frozen base model: what its last or its top layers start from, cached."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from modeling.core.chat_adapter import Answers
from modeling.core.chat_store import CACHE_BYTES, SealedStore
from modeling.core.chat_tokens import Conversation
from modeling.core.types import CoreError

transformers_logging.disable_progress_bar()

_BATCH_TOKENS = 2048
_SMALLEST_LEAD = 8  # tokens: a shorter common beginning is not worth a pass of its own
_SMALLEST_GROUP = 4  # conversations
Indices = npt.NDArray[np.int64]


def quick_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the processor multiplies it directly (measured: 4.5 times float32 on Zen 5), else float32."""
    if device.type == "cuda":
        return torch.bfloat16
    able = torch.cpu.get_capabilities()
    return torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") else torch.float32


@dataclass(frozen=True)
class Read:
    """One conversation under the frozen model.

    `final` [m, d]: last hidden states of the tokens before each answer token. With `top` layers also `lower`
    [t - o, d]: what these layers are given, from the first opening o on; and `past` [2, top, heads, p, size]: their
    keys and values up to the last opening p.
    """

    final: torch.Tensor
    lower: torch.Tensor | None = None
    past: torch.Tensor | None = None


class FrozenChat:
    """A base model that is only read: hidden states in, vocabulary matrix out."""

    def __init__(self, folder: Path, device: torch.device, *, dtype: torch.dtype | None = None) -> None:
        self.device = device
        self.model: Any = AutoModelForCausalLM.from_pretrained(
            str(folder), local_files_only=True, dtype=dtype or quick_dtype(device)
        )
        self.model.to(device).eval().requires_grad_(False)
        self.vocabulary: torch.Tensor = self.model.get_output_embeddings().weight
        self.width = int(self.model.config.hidden_size)

    @property
    def body(self) -> Any:
        """The model without its output layer; raises CoreError when it has no list of layers we know."""
        body = self.model.base_model
        if not hasattr(body, "layers"):
            raise CoreError("This base model cannot be tuned for chat.", code="unknown_architecture")
        return body

    def states(self, conversations: Sequence[Conversation]) -> Iterator[tuple[int, torch.Tensor]]:
        """(index, hidden [m, d] of the tokens before each answer token), batch by batch."""
        for index, read in self.read(conversations):
            yield index, read.final

    def read(self, conversations: Sequence[Conversation], *, top: int = 0) -> Iterator[tuple[int, Read]]:
        """Every conversation once, similar lengths together, a system text that several share read once."""
        top = min(top, len(self.body.layers))
        for lead, members in _by_lead(conversations):
            prefix = self._prefix(lead) if len(lead) else None
            order = sorted(members, key=lambda index: len(conversations[index].ids))
            for batch in _batches(order, conversations, len(lead)):
                rows = [conversations[index].ids[len(lead) :] for index in batch]
                hidden, lower, cache = self._forward(rows, prefix, top)
                for row, index in enumerate(batch):
                    yield index, _cut(conversations[index], row, len(lead), hidden, lower, cache, top)

    def _prefix(self, lead: Indices) -> Any:
        with torch.no_grad():
            tokens = torch.from_numpy(lead)[None].to(self.device)
            return self.body(input_ids=tokens, use_cache=True).past_key_values

    def _forward(
        self, rows: Sequence[Indices], prefix: Any, top: int
    ) -> tuple[torch.Tensor, torch.Tensor | None, Any]:
        """Padded on the right, where a causal model never looks back from: (last hidden, given to the top, cache)."""
        padded = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
        for row, line in enumerate(rows):
            padded[row, : len(line)] = line
        tokens = torch.from_numpy(padded).to(self.device)
        if prefix is not None:
            prefix = copy.deepcopy(prefix)
            prefix.batch_repeat_interleave(len(rows))
        given: list[torch.Tensor] = []
        hook = None
        if top:
            layer = self.body.layers[-top]
            hook = layer.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
        try:
            with torch.no_grad():
                found = self.body(
                    input_ids=tokens, past_key_values=prefix, use_cache=bool(top) or prefix is not None
                )
        finally:
            if hook is not None:
                hook.remove()
        return found.last_hidden_state, given[0] if given else None, found.past_key_values


def _by_lead(conversations: Sequence[Conversation]) -> Iterator[tuple[Indices, list[int]]]:
    """(common first tokens, members): those that share a long enough beginning, then all others with none."""
    groups: dict[bytes, list[int]] = {}
    for index, item in enumerate(conversations):
        lead = item.ids[: min(item.lead, len(item.ids) - 1)]
        groups.setdefault(lead.tobytes() if len(lead) >= _SMALLEST_LEAD else b"", []).append(index)
    others = groups.pop(b"", [])
    for key, members in groups.items():
        if len(members) < _SMALLEST_GROUP:
            others += members
        else:
            yield np.frombuffer(key, dtype=np.int64).copy(), members
    if others:
        yield np.empty(0, dtype=np.int64), others


def _batches(order: Sequence[int], conversations: Sequence[Conversation], lead: int) -> Iterator[list[int]]:
    batch: list[int] = []
    for index in order:
        if batch and (len(conversations[index].ids) - lead) * (len(batch) + 1) > _BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _cut(
    item: Conversation,
    row: int,
    lead: int,
    hidden: torch.Tensor,
    lower: torch.Tensor | None,
    cache: Any,
    top: int,
) -> Read:
    """One row of a batch, without its padding. Answers never begin inside the lead, so their states are all here."""
    before = torch.from_numpy(item.answers - 1 - lead).to(hidden.device)
    final = hidden[row, before].clone()
    if lower is None:
        return Read(final)
    if not item.turns:
        return Read(final, lower[row, :0].clone(), None)
    opened, last = item.turns[0].open, item.turns[-1].open
    parts = [(layer.keys[row, :, :last], layer.values[row, :, :last]) for layer in cache.layers[-top:]]
    past = torch.stack([torch.stack([part[side] for part in parts]) for side in (0, 1)])
    return Read(final, lower[row, opened - lead : len(item.ids) - lead].clone(), past)


class Cache:
    """Final hidden states of many conversations' answers, and batches of them by unit."""

    def __init__(
        self,
        units: Sequence[int],
        conversations: Sequence[Conversation],
        *,
        limit_bytes: int = CACHE_BYTES,
    ) -> None:
        """`units[i]` says whose conversation i is."""
        self.store = SealedStore(limit_bytes=limit_bytes)
        self._targets = [torch.from_numpy(item.ids[item.answers]) for item in conversations]
        self._of_unit: dict[int, list[int]] = {}
        for index, unit in enumerate(units):
            self._of_unit.setdefault(unit, []).append(index)

    def put(self, index: int, read: Read) -> None:
        """What was read of conversation `index`."""
        self.store.put(index, read.final)

    def answers(
        self, units: Sequence[int] | Indices, *, tokens: int | None, choice: np.random.Generator
    ) -> Answers | None:
        """The answers of these units, `tokens` random ones of a conversation at most; None if there are none."""
        hidden, targets, owner, weight = [], [], [], []
        for unit in sorted(int(unit) for unit in units):
            rows = [index for index in self._of_unit.get(unit, ()) if len(self._targets[index])]
            for index in rows:
                kept = some(len(self._targets[index]), tokens, choice)
                hidden.append(self.store.get(index)[kept])
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


def some(count: int, limit: int | None, choice: np.random.Generator) -> torch.Tensor:
    """Ascending indices of at most `limit` random ones out of `count`."""
    if limit is None or count <= limit:
        return torch.arange(count)
    return torch.from_numpy(np.sort(choice.choice(count, size=limit, replace=False)))
