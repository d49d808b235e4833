"""A plan puts every row in one place, rows of the right adapters together, and leaves little empty."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from modeling.serving.encoder_plan import MIXED_RANKS, plan

ROWS = st.lists(st.tuples(st.integers(1, 256), st.integers(0, 20)), min_size=1, max_size=120)


def test_it_works() -> None:
    calls = plan([15, 30, 8, 60, 15], [0] * 5)
    assert [(call.bins, call.length) for call in calls] == [(1, 128)]
    assert sorted(calls[0].rows.tolist()) == [0, 1, 2, 3, 4]


@given(ROWS, st.sampled_from([0, 8, 16, 64]))
def test_every_row_lies_in_one_place_with_its_own_adapter(rows: list[tuple[int, int]], rank: int) -> None:
    lengths = [length for length, _ in rows]
    slots = [slot if rank else 0 for _, slot in rows]
    seen: list[int] = []
    for call in plan(lengths, slots, rank):
        taken = np.zeros(call.bins * call.length, dtype=int)
        for row, start, part in zip(call.rows, call.starts, call.parts, strict=True):
            place = start // call.length
            assert (start + lengths[row] - 1) // call.length == place  # it ends in the bin in which it begins
            taken[start : start + lengths[row]] += 1
            assert call.slots[place, part] == slots[row]
        assert taken.max() == 1
        assert call.slots.shape[1] <= max(1, MIXED_RANKS // max(rank, 1))
        seen += call.rows.tolist()
    assert sorted(seen) == list(range(len(rows)))


def test_little_is_padding() -> None:
    chance = np.random.default_rng(0)
    lengths = chance.integers(4, 44, 64).tolist()
    for slots, rank, most in (([0] * 64, 0, 1.05), ([1] * 64, 8, 1.05), (list(range(64)), 8, 1.15)):
        calls = plan(lengths, slots, rank)
        assert sum(call.bins * call.length for call in calls) < most * sum(lengths)
        assert len(calls) < 8
