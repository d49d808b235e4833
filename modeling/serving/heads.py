"""Tuned classifiers in their banks: heads by number of classes, LoRA adapters by rank, pinned for a request."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch

from modeling.serving.bank import PLAIN, Mix, SlotBank
from modeling.serving.bert import Bert
from modeling.serving.encoder_sessions import Floats
from modeling.serving.store import Artifact, ArtifactStore, Reference
from modeling.serving.wire import EngineRefusal

# Memory is taken when a slot is first written: 1.3 MB for every linear layer at rank 8, a quarter for query and value.
CLASS_SLOTS = {32: 128, 256: 32, 2048: 8}  # classes up to -> slots
RANK_SLOTS = {8: 128, 16: 32, 64: 8}  # rank up to -> slots


@dataclass(frozen=True, slots=True)
class Answering:
    """How a version's logits become an answer. `abstain_below` is what its calibration suggests, if anything."""

    temperature: float
    multi_label: bool
    abstain_below: float | None

    def probabilities(self, logits: Floats) -> Floats:
        """Calibrated confidences [m, K]: of one class, or of each label by itself."""
        scaled = logits / np.float32(self.temperature)
        if self.multi_label:
            found: Floats = np.exp(-np.logaddexp(np.float32(0), -scaled))
            return found
        shares: Floats = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        return shares


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
        self._table_dtype = torch.float32

    def adopt(self, table_dtype: torch.dtype) -> None:
        """Hold adapters in this type from now on. What is in flight keeps its slots until it has left."""
        if table_dtype == self._table_dtype:
            return
        self._table_dtype = table_dtype
        for bank in self._loras.values():
            bank.retire()
        self._loras = {}

    @property
    def banks(self) -> list[SlotBank]:
        """All banks allocated so far."""
        return [*self._heads.values(), *self._loras.values()]

    @asynccontextmanager
    async def pinned(self, reference: Reference) -> AsyncIterator[Pinned]:
        """The version's slots for the length of the block; raises EngineRefusal when it cannot be served."""
        artifact = await self._store.get(reference)
        parts = _parts(artifact, self._model, self._store)
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
        if room in banks:
            return banks[room]
        if banks is self._loras:
            shapes, device = self._model.lora_shapes(room), self._model.device
            banks[room] = SlotBank(shapes, slots=classes[room], dtype=self._table_dtype, device=device)
        else:
            banks[room] = SlotBank(
                {"weight": (room, self._model.width), "bias": (room,)}, slots=classes[room]
            )
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


def _parts(artifact: Artifact, model: Bert, store: ArtifactStore) -> _Parts:
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
    own = 0 if parts.model is None else parts.model.own_bytes(model)
    store.grow(artifact, own + sum(value.nbytes for value in (*head.values(), *lora.values())))
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


def probabilities(features: Floats, pins: Sequence[Pinned | None]) -> list[Floats | None]:
    """Confidences [classes of that row] per row from the row's own head slot, None without: features [n, width]."""
    out: list[Floats | None] = [None] * len(pins)
    shared: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, pin in enumerate(pins):
        if pin is not None:
            shared[id(pin.head), pin.head_slot].append(index)
    for rows in shared.values():
        pin = cast("Pinned", pins[rows[0]])
        weight, bias = (
            pin.head.tables[name][pin.head_slot, : len(pin.labels)].numpy() for name in ("weight", "bias")
        )
        found = pin.answering.probabilities(features[rows] @ weight.T + bias)
        for index, row in zip(rows, found, strict=True):
            out[index] = row
    return out
