"""Tuned chat models in their banks: final-hidden adapters, and LoRA by rank, pinned for the length of an answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import torch

from modeling.serving.bank import PLAIN, Mix, SlotBank
from modeling.serving.decoder import Llama
from modeling.serving.store import Artifact, ArtifactStore, Reference
from modeling.serving.wire import EngineRefusal

FINAL_SLOTS = 64
FINAL_RANK = 64
RANK_SLOTS = {8: 24, 16: 16}  # rank up to -> slots
_FINAL = ("adapter.A", "adapter.B", "adapter.bias")


@dataclass(frozen=True, slots=True)
class Tuning:
    """What one conversation goes through: a final-hidden slot, a LoRA slot, or neither.

    A LoRA applies to the last `opening` tokens of the prompt and the answer; to all of it when `opening` is None.
    """

    final: int = PLAIN
    lora: SlotBank | None = None
    slot: int = PLAIN
    opening: int | None = None

    def plain_tokens(self, prompt: int) -> int:
        """How many of a prompt's first tokens are read without the adapter."""
        if self.lora is None:
            return prompt
        return 0 if self.opening is None else max(prompt - self.opening, 0)


class Tunings:
    """The banks of one decoder. A LoRA bank is allocated when its first artefact comes."""

    def __init__(self, model: Llama, store: ArtifactStore) -> None:
        self._model = model
        self._store = store
        shapes = {
            "adapter.A": (FINAL_RANK, model.width),
            "adapter.B": (model.width, FINAL_RANK),
            "adapter.bias": (model.width,),
        }
        self.final = SlotBank(shapes, slots=FINAL_SLOTS, device=model.device)
        self._loras: dict[int, SlotBank] = {}

    @property
    def banks(self) -> list[SlotBank]:
        """All banks allocated so far."""
        return [self.final, *self._loras.values()]

    @asynccontextmanager
    async def pinned(
        self, reference: Reference | None, prompt: Sequence[int] | None
    ) -> AsyncIterator[Tuning]:
        """The version's slots for the length of the block; raises EngineRefusal when it cannot be served.

        Without a prompt the version is only brought into its slot.
        """
        if reference is None:
            yield Tuning()
            return
        artifact = await self._store.get(reference)
        if artifact.config.get("task") != "chat":
            raise EngineRefusal("wrong_task", "This model is not a chat model.")
        is_lora = any(name.startswith("lora.") for name in artifact.tensors)
        bank = self._lora_bank(artifact) if is_lora else self.final
        opening = _opening(artifact, prompt) if is_lora and prompt is not None else None

        async def read() -> dict[str, torch.Tensor]:
            return lora_tensors(artifact, self._model) if is_lora else _final_tensors(artifact, self._model)

        slot = await bank.pin(artifact.key, read)
        try:
            yield Tuning(lora=bank, slot=slot, opening=opening) if is_lora else Tuning(final=slot)
        finally:
            bank.release(slot)

    def _lora_bank(self, artifact: Artifact) -> SlotBank:
        rank = _rank(artifact)
        room = min(limit for limit in RANK_SLOTS if limit >= rank)
        if room not in self._loras:
            shapes = self._model.lora_shapes(room)
            device = self._model.device
            # Small products of float32 take a third of bfloat16's time on a CPU.
            dtype = torch.float32 if device.type == "cpu" else self._model.dtype
            self._loras[room] = SlotBank(shapes, slots=RANK_SLOTS[room], dtype=dtype, device=device)
        return self._loras[room]

    def purge(self, tenant: str, version: str | None) -> int:
        """Empty the slots of a tenant or version; returns how many."""
        return sum(bank.purge(tenant, version) for bank in self.banks)


def mixes(tunings: Sequence[Tuning]) -> list[Mix]:
    """One gather per LoRA bank that any row of the batch uses."""
    banks = {id(one.lora): one.lora for one in tunings if one.lora is not None}
    return [Mix(bank, _slots(tunings, bank)) for bank in banks.values()]


def _slots(tunings: Sequence[Tuning], bank: SlotBank) -> torch.Tensor:
    """Which slot of `bank` each row uses, on the bank's device."""
    slots = [one.slot if one.lora is bank else PLAIN for one in tunings]
    return torch.tensor(slots, device=next(iter(bank.tables.values())).device)


def _rank(artifact: Artifact) -> int:
    rank = artifact.config.get("rank")
    if not isinstance(rank, int) or not 0 < rank <= max(RANK_SLOTS):
        raise EngineRefusal("bad_artifact", "The model's LoRA rank cannot be served.")
    return rank


def _opening(artifact: Artifact, prompt: Sequence[int]) -> int | None:
    """How many of the prompt's last tokens open the answer, as the artefact knows them; None: it applies everywhere."""
    found = artifact.config.get("invocation")
    if found is None:
        return None
    if not isinstance(found, list) or not found or list(prompt[-len(found) :]) != found:
        raise EngineRefusal("bad_artifact", "The model does not know how an answer opens here.")
    return len(found)


def lora_tensors(artifact: Artifact, model: Llama) -> dict[str, torch.Tensor]:
    """The LoRA tensors of an artefact by module, B times alpha / rank; raises EngineRefusal for any that do not fit."""
    rank = _rank(artifact)
    shapes, found = model.lora_shapes(rank), {}
    for name, value in artifact.tensors.items():
        module = name.removeprefix("lora.")
        if module == name or shapes.get(module) != tuple(value.shape):
            raise EngineRefusal("bad_artifact", "The model's LoRA adapters do not fit the base.")
        tensor = torch.tensor(value, dtype=torch.float32)
        found[module] = tensor * (_alpha(artifact.config) / rank) if module.endswith(".B") else tensor
    return found


def _alpha(config: Mapping[str, Any]) -> float:
    alpha = config.get("alpha")
    if not isinstance(alpha, (int, float)):
        raise EngineRefusal("bad_artifact", "The model's LoRA adapters lack their alpha.")
    return float(alpha)


def _final_tensors(artifact: Artifact, model: Llama) -> dict[str, torch.Tensor]:
    """The final-hidden adapter of an artefact; raises EngineRefusal for anything else."""
    if any(name not in artifact.tensors for name in _FINAL):
        raise EngineRefusal("bad_artifact", "The model lacks a tensor.")
    tensors = {name: torch.tensor(artifact.tensors[name], dtype=torch.float32) for name in _FINAL}
    rank, width = len(tensors["adapter.A"]), model.width
    shapes = {"adapter.A": (rank, width), "adapter.B": (width, rank), "adapter.bias": (width,)}
    if rank > FINAL_RANK or any(tuple(tensors[name].shape) != shape for name, shape in shapes.items()):
        raise EngineRefusal("bad_artifact", "The model's adapter does not fit the base.")
    return tensors
