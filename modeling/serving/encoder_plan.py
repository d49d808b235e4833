"""How a batch of texts of any length becomes a few runs of a graph over bins of equal length: hardly any padding."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

BIN_TOKENS = 128  # texts lie behind one another up to here; attention over it costs a twentieth
MIXED_TOKENS = (
    48  # the same where each has an adapter of its own, for each place is multiplied with all of its bin's
)
MIXED_RANKS = 32  # so many ranks in all
STEP = 4  # bins end at multiples of it, so that shapes repeat
CALL_TOKENS = 16  # what a run of the graph costs beside its tokens, in tokens

_Piece = tuple[int, int, list[int]]  # tokens, slot, rows
Integers = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """One run of the graph over bins of `length` places each."""

    length: int
    slots: Integers  # [bins, k] of the adapter bank
    rows: Integers  # [m] indices into the batch
    starts: Integers  # [m] first place of each row, counted through all bins
    parts: Integers  # [m] which of its bin's k slots is the row's

    @property
    def bins(self) -> int:
        """How many bins run together."""
        return len(self.slots)


@dataclass(slots=True, eq=False)
class _Bin:
    rows: list[int] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)
    fill: int = 0

    def add(self, rows: Sequence[int], slot: int, tokens: int) -> None:
        self.rows.extend(rows)
        self.fill += tokens
        if slot not in self.slots:
            self.slots.append(slot)


def plan(lengths: Sequence[int], slots: Sequence[int], rank: int = 0) -> list[Call]:
    """Runs that cover all rows, bins of similar fill in one run.

    `lengths` [n] in tokens, `slots` [n] of a bank of `rank` (0: there is none, all slots are 0).
    """
    by_slot: dict[int, list[int]] = defaultdict(list)
    for row, slot in enumerate(slots):
        by_slot[slot].append(row)
    bins: list[_Bin] = []
    small: list[_Piece] = []
    for slot, rows in by_slot.items():
        tokens = sum(lengths[row] for row in rows)
        if rank and tokens <= MIXED_TOKENS:
            small.append((tokens, slot, rows))
        else:
            bins += _spread([(lengths[row], slot, [row]) for row in rows], room=BIN_TOKENS)
    if small:
        bins += _spread(small, room=MIXED_TOKENS, adapters=max(1, MIXED_RANKS // rank))
    bins.sort(key=lambda one: one.fill)
    return [
        _call(bins[first:last], lengths, slots) for first, last in _cuts([_room(one.fill) for one in bins])
    ]


def _spread(pieces: list[_Piece], *, room: int, adapters: int = 2) -> list[_Bin]:
    """As few bins of `room` tokens as hold the pieces, filled evenly, closed when they have so many `adapters`.

    The largest piece left goes where most room is.
    """
    total = sum(tokens for tokens, _, _ in pieces)
    kinds = len({slot for _, slot, _ in pieces})
    bins = [_Bin() for _ in range(min(len(pieces), max(-(-total // room), -(-kinds // adapters))))]
    open_bins = [(0, number) for number in range(len(bins))]
    for tokens, slot, rows in sorted(pieces, key=lambda piece: -piece[0]):
        _, number = heapq.heappop(open_bins)
        one = bins[number]
        one.add(rows, slot, tokens)
        if len(one.slots) < adapters:
            heapq.heappush(open_bins, (one.fill, number))
    return bins


def _room(fill: int) -> int:
    return -(-fill // STEP) * STEP


def _cuts(rooms: Sequence[int]) -> list[tuple[int, int]]:
    """Where to cut rising `rooms` so that padding and runs together cost least: [first, last) of each run."""
    ends = [k for k in range(1, len(rooms) + 1) if k == len(rooms) or rooms[k] != rooms[k - 1]]
    starts = [0, *ends]
    cost, cut = [0], [0]
    for end in range(1, len(starts)):
        room = rooms[starts[end] - 1]
        cheapest = min(
            (cost[begin] + CALL_TOKENS + room * (starts[end] - starts[begin]), begin) for begin in range(end)
        )
        cost.append(cheapest[0])
        cut.append(cheapest[1])
    found = []
    end = len(starts) - 1
    while end:
        found.append((starts[cut[end]], starts[end]))
        end = cut[end]
    return found


def _call(bins: Sequence[_Bin], lengths: Sequence[int], slots: Sequence[int]) -> Call:
    length = _room(bins[-1].fill)
    most = max(len(one.slots) for one in bins)
    rows, starts, parts = [], [], []
    for number, one in enumerate(bins):
        place = number * length
        for row in one.rows:
            rows.append(row)
            starts.append(place)
            parts.append(one.slots.index(slots[row]))
            place += lengths[row]
    table = np.zeros((len(bins), most), dtype=np.int64)
    for number, one in enumerate(bins):
        table[number, : len(one.slots)] = one.slots
    return Call(length, table, np.array(rows), np.array(starts), np.array(parts))
