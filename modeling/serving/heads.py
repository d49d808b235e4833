"""Tuned classifiers in their banks: heads by number of classes, LoRA adapters by rank, pinned for a request."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import torch

from modeling.serving.bank import PLAIN, Mix, SlotBank
from modeling.serving.bert import Bert
from modeling.serving.store import Artifact, ArtifactStore, Reference
from modeling.serving.wire import EngineRefusal

CLASS_SLOTS = {32: 128, 256: 32, 2048: 8}  # classes up to -> slots
RANK_SLOTS = {8: 32, 16: 16, 64: 4}  # rank up to -> slots
_GATHER_FLOATS = 2_000_000  # at most this much of a head bank is copied at once


@dataclass(frozen=True, slots=True)
class Answering:
    """How a version's logits become an answer. `abstain_below` is what its calibration suggests, if anything."""

    temperature: float
    multi_label: bool
    abstain_below: float | None

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Calibrated confidences [K]: of one class, or of each label by itself."""
        scaled = logits / self.temperature
        return torch.sigmoid(scaled) if self.multi_label else torch.softmax(scaled, 0)


@dataclass(frozen=True, slots=True, eq=False)
class Pinned:
    """One version's slots, held while its rows are under way. `lora` is None for a head on the frozen base."""

    artifact: Artifact
    labels: tuple[str, ...]
    answering: Answering
    head: SlotBank
    head_slot: int
    lora: SlotBank | None
    lora_slot: int
    model: Bert | None = (
        None  # of a version that was trained in all its layers; else the base encodes its rows
    )


class Heads:
    """The banks of one encoder. A bank is allocated when its first artefact comes."""

    def __init__(self, model: Bert, store: ArtifactStore) -> None:
        self._model = model
        self._store = store
        self._heads: dict[int, SlotBank] = {}
        self._loras: dict[int, SlotBank] = {}

    @property
    def banks(self) -> list[SlotBank]:
        """All banks allocated so far."""
        return [*self._heads.values(), *self._loras.values()]

    @asynccontextmanager
    async def pinned(self, reference: Reference) -> AsyncIterator[Pinned]:
        """The version's slots for the length of the block; raises EngineRefusal when it cannot be served."""
        artifact = await self._store.get(reference)
        parts = _parts(artifact, self._model)
        head = self._bank(self._heads, len(parts.labels), CLASS_SLOTS)
        slot = await head.pin(artifact.key, parts.read_head)
        try:
            if not parts.lora:
                yield Pinned(artifact, parts.labels, parts.answering, head, slot, None, PLAIN, parts.model)
                return
            lora = self._bank(self._loras, parts.rank, RANK_SLOTS)
            lora_slot = await lora.pin(artifact.key, parts.read_lora)
            try:
                yield Pinned(artifact, parts.labels, parts.answering, head, slot, lora, lora_slot)
            finally:
                lora.release(lora_slot)
        finally:
            head.release(slot)

    def _bank(self, banks: dict[int, SlotBank], size: int, classes: Mapping[int, int]) -> SlotBank:
        room = min(limit for limit in classes if limit >= size)
        if room not in banks:
            shapes: dict[str, tuple[int, ...]] = {"weight": (room, self._model.width), "bias": (room,)}
            if banks is self._loras:
                shapes = self._model.lora_shapes(room)
            banks[room] = SlotBank(shapes, slots=classes[room])
        return banks[room]

    def purge(self, tenant: str, version: str | None) -> int:
        """Empty the slots of a tenant or version; returns how many."""
        return sum(bank.purge(tenant, version) for bank in self.banks)


@dataclass(frozen=True, slots=True)
class _Parts:
    """A checked artefact as torch tensors, ready to be written into slots."""

    labels: tuple[str, ...]
    answering: Answering
    head: dict[str, torch.Tensor]
    lora: dict[str, torch.Tensor]
    rank: int
    model: Bert | None

    async def read_head(self) -> dict[str, torch.Tensor]:
        return self.head

    async def read_lora(self) -> dict[str, torch.Tensor]:
        return self.lora


def _parts(artifact: Artifact, model: Bert) -> _Parts:
    """Check and convert once per artefact in RAM; raises EngineRefusal `bad_artifact`."""
    known = artifact.extras.get("classifier")
    if isinstance(known, _Parts):
        return known
    if artifact.config.get("task") != "classification":
        raise EngineRefusal("wrong_task", "This model is not a classifier.")
    labels = tuple(str(label) for label in artifact.config.get("labels", ()))
    if not 0 < len(labels) <= max(CLASS_SLOTS):
        raise EngineRefusal("bad_artifact", "The model has no labels, or too many to serve.")
    head = {name: _tensor(artifact, f"head.{name}") for name in ("weight", "bias")}
    if head["weight"].shape != (len(labels), model.width) or head["bias"].shape != (len(labels),):
        raise EngineRefusal("bad_artifact", "The model's head does not fit its labels.")
    lora, rank = _lora(artifact, model)
    parts = _Parts(labels, _answering(artifact), head, lora, rank, _full(artifact, model))
    artifact.extras["classifier"] = parts
    return parts


def _answering(artifact: Artifact) -> Answering:
    config = artifact.config
    suggested = config.get("abstain_below")
    return Answering(
        temperature=float(config.get("temperature", 1.0)) or 1.0,
        multi_label=bool(config.get("multi_label", False)),
        abstain_below=None if suggested is None else float(suggested),
    )


def _lora(artifact: Artifact, model: Bert) -> tuple[dict[str, torch.Tensor], int]:
    names = [name for name in artifact.tensors if name.startswith("lora.")]
    if not names:
        return {}, 0
    rank = int(artifact.config["rank"])
    if not 0 < rank <= max(RANK_SLOTS):
        raise EngineRefusal("bad_artifact", "The model's LoRA rank cannot be served.")
    shapes = model.lora_shapes(rank)
    lora = {name.removeprefix("lora."): _tensor(artifact, name) for name in names}
    for name, tensor in lora.items():
        if shapes.get(name) != tuple(tensor.shape):
            raise EngineRefusal("bad_artifact", "The model's LoRA adapters do not fit the base.")
        if name.endswith(".B"):
            tensor.mul_(float(artifact.config["alpha"]) / rank)
    return lora, rank


def _full(artifact: Artifact, model: Bert) -> Bert | None:
    """The encoder of a version that brings `full.<name>` tensors; they are used where they lie, not copied."""
    own = {
        name.removeprefix("full."): torch.from_numpy(value)
        for name, value in artifact.tensors.items()
        if name.startswith("full.")
    }
    if not own:
        return None
    try:
        if any(value.dtype != torch.float32 for value in own.values()):
            raise ValueError("layers must be float32")
        return model.changed(own)
    except ValueError as error:
        raise EngineRefusal("bad_artifact", "The model's layers do not fit the base.") from error


def _tensor(artifact: Artifact, name: str) -> torch.Tensor:
    if name not in artifact.tensors:
        raise EngineRefusal("bad_artifact", "The model lacks a tensor.")
    return torch.tensor(artifact.tensors[name], dtype=torch.float32)


def mixes(pins: Sequence[Pinned | None]) -> list[Mix]:
    """One gather per LoRA bank that any row of the batch uses."""
    banks = {id(pin.lora): pin.lora for pin in pins if pin is not None and pin.lora is not None}
    return [
        Mix(bank, torch.tensor([pin.lora_slot if pin and pin.lora is bank else PLAIN for pin in pins]))
        for bank in banks.values()
    ]


def logits(features: torch.Tensor, pins: Sequence[Pinned | None]) -> list[torch.Tensor | None]:
    """W x + b per row from the row's own head slot: features [n, width] -> n tensors [classes of that row], or None."""
    out: list[torch.Tensor | None] = [None] * len(pins)
    for bank in {id(pin.head): pin.head for pin in pins if pin is not None}.values():
        rows = [index for index, pin in enumerate(pins) if pin is not None and pin.head is bank]
        room, width = bank.tables["weight"].shape[1:]
        step = max(1, _GATHER_FLOATS // (room * width))
        for first in range(0, len(rows), step):
            part = rows[first : first + step]
            chosen = [pin for index in part if (pin := pins[index]) is not None]
            slots = torch.tensor([pin.head_slot for pin in chosen])
            weight = bank.tables["weight"].index_select(0, slots)
            scores = torch.bmm(weight, features[part].unsqueeze(2)).squeeze(2)
            scores += bank.tables["bias"].index_select(0, slots)
            for index, pin, row in zip(part, chosen, scores, strict=True):
                out[index] = row[: len(pin.labels)]
    return out
