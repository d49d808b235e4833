"""Adapter banks: preallocated slots from which each row of a batch gathers its own tenant's tensors.

Slot 0 is all zeros for ever: a row without an adapter uses it. A slot is zeroed before it is written, so whatever an
artefact does not bring (a module, the classes above its own) is zero and never the previous tenant's.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import torch

from modeling.serving.memory import lazy_zeros
from modeling.serving.store import CacheKey
from modeling.serving.wire import EngineRefusal

PLAIN = 0


class SlotBank:
    """One rank class or class-count class of a base: tables `[slots + 1, *shape]`, LRU, pinned while in flight.

    Methods run on the event loop; the compute thread only reads slots that are pinned, so a write never races a read.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        *,
        slots: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.dtype = dtype
        self.tables = {name: lazy_zeros((slots + 1, *shape), dtype, device) for name, shape in shapes.items()}
        self.holders = dict.fromkeys(shapes, 0)  # how many slots bring this tensor: 0 means skip its product
        self._free = list(range(slots, PLAIN, -1))
        self._slot_of: OrderedDict[CacheKey, int] = OrderedDict()  # least recently used first
        self._pins = [0] * (slots + 1)
        self._brought: dict[int, list[str]] = {}
        self._dying: set[int] = set()
        self._placing: dict[CacheKey, asyncio.Event] = {}
        self._doomed: set[CacheKey] = set()
        self._released = asyncio.Event()
        self.hits = 0
        self.misses = 0
        self.evictions = 0

    def __contains__(self, key: CacheKey) -> bool:
        return key in self._slot_of

    @property
    def rank(self) -> int:
        """The rank that its adapters have room for."""
        return next(int(table.shape[1]) for name, table in self.tables.items() if name.endswith(".A"))

    @property
    def used(self) -> int:
        """Slots that hold something."""
        return len(self._slot_of) + len(self._dying)

    async def pin(self, key: CacheKey, read: Callable[[], Awaitable[Mapping[str, torch.Tensor]]]) -> int:
        """The slot that holds `key`, pinned until `release`; `read` is called once however many ask at once."""
        while True:
            slot = self._slot_of.get(key)
            if slot is not None:
                self.hits += 1
                self._pins[slot] += 1
                self._slot_of.move_to_end(key)
                return slot
            if (placing := self._placing.get(key)) is not None:
                await placing.wait()
                continue
            return await self._place(key, read)

    async def _place(self, key: CacheKey, read: Callable[[], Awaitable[Mapping[str, torch.Tensor]]]) -> int:
        placing = self._placing[key] = asyncio.Event()
        try:
            tensors = await read()
            slot = await self._claim_slot()
            if key in self._doomed:
                self._free.append(slot)
                self._released.set()
                raise EngineRefusal("revoked", "The model was withdrawn.")
            self._write(slot, tensors)
            self.misses += 1
            self._slot_of[key] = slot
            self._pins[slot] = 1
            return slot
        finally:
            self._doomed.discard(key)
            del self._placing[key]
            placing.set()

    async def _claim_slot(self) -> int:
        while True:
            if self._free:
                return self._free.pop()
            for key, slot in self._slot_of.items():
                if not self._pins[slot]:
                    del self._slot_of[key]
                    self.evictions += 1
                    self._zero(slot)
                    return slot
            self._released.clear()
            await self._released.wait()

    def _write(self, slot: int, tensors: Mapping[str, torch.Tensor]) -> None:
        brought = self._brought[slot] = []
        try:
            for name, source in sorted(tensors.items()):
                target = self.tables[name][slot]
                brought.append(name)
                self.holders[name] += 1
                target[tuple(slice(0, size) for size in source.shape)] = source
        except (KeyError, RuntimeError, IndexError) as error:
            self._zero(slot)
            self._free.append(slot)
            self._released.set()
            raise EngineRefusal("bad_artifact", "The model's tensors do not fit the base.") from error

    def _zero(self, slot: int) -> None:
        for name in self._brought.pop(slot, ()):  # the others were never written since they were last zeroed
            self.tables[name][slot].zero_()
            self.holders[name] -= 1

    def release(self, slot: int) -> None:
        """Undo one `pin`."""
        self._pins[slot] -= 1
        if self._pins[slot]:
            return
        if slot in self._dying:
            self._dying.discard(slot)
            self._zero(slot)
            self._free.append(slot)
        self._released.set()

    def purge(self, tenant: str, version: str | None) -> int:
        """Zero the slots of a tenant (or of one version); those in flight are zeroed when their last row leaves."""
        self._doomed.update(key for key in self._placing if key.belongs_to(tenant, version))
        return self._empty([key for key in self._slot_of if key.belongs_to(tenant, version)])

    def retire(self) -> int:
        """Zero every slot, those in flight when their last row leaves: another bank takes over."""
        return self._empty(list(self._slot_of))

    def _empty(self, gone: list[CacheKey]) -> int:
        for key in gone:
            slot = self._slot_of.pop(key)
            if self._pins[slot]:
                self._dying.add(slot)
                continue
            self._zero(slot)
            self._free.append(slot)
        self._released.set()
        return len(gone)


@dataclass(frozen=True, slots=True)
class Mix:
    """Which slot of `bank` each row of a batch uses: slots [rows], 0 for none."""

    bank: SlotBank
    slots: torch.Tensor


def own_factors(
    bank: SlotBank, name: str, slots: torch.Tensor, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """A [n, rank, in] and B [n, out, rank] of every row's own slot, slots [n]."""
    down = bank.tables[f"{name}.A"].index_select(0, slots).to(dtype)
    return down, bank.tables[f"{name}.B"].index_select(0, slots).to(dtype)


def low_rank(bank: SlotBank, name: str, rows: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
    """B A x for every row with its own A and B: rows [n, t, in], slots [n] -> [n, t, out], in the rows' dtype."""
    down, up = own_factors(bank, name, slots, rows.dtype)
    return torch.bmm(torch.bmm(rows, down.transpose(1, 2)), up.transpose(1, 2))
