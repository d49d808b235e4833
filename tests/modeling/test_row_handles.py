"""Rows that are one person each: the same handles whether their digests are remembered or sorted on disk."""

from __future__ import annotations

import os
import random
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256

import pytest

from modeling import row_handles
from modeling.row_handles import RowHandles
from modeling.units import occurrence_handle

KEY = b"k" * 32
Batches = list[tuple[list[bytes], list[bytes]]]


def _expected(batches: Batches) -> list[tuple[bytes, bytes]]:
    """By the definition: the n-th equal row has the handle of its n-th occurrence."""
    seen: Counter[bytes] = Counter()
    pairs = []
    for digests, rows in batches:
        for digest, row in zip(digests, rows, strict=True):
            pairs.append((occurrence_handle(KEY, digest, seen[digest]), row))
            seen[digest] += 1
    return pairs


def _batches(rows: int, kinds: int, *, seed: int = 1) -> Batches:
    source = random.Random(seed)
    texts = [f"{source.randrange(kinds)}".encode() for _ in range(rows)]
    return [
        ([sha256(text).digest() for text in texts[at : at + 70]], texts[at : at + 70])
        for at in range(0, rows, 70)
    ]


@pytest.mark.parametrize("kinds", [1, 40, 10**9])
@pytest.mark.parametrize("remembered", [0, 100, 10**6])
def test_handles_are_the_same_however_many_are_remembered(
    kinds: int, remembered: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_handles, "_SPOOL_BYTES", 20_000)
    batches = _batches(3_000, kinds)
    pairs = list(RowHandles(KEY, remembered).pairs(batches))
    assert pairs == _expected(batches)
    assert len({handle for handle, _row in pairs}) == len(pairs)


def test_handles_of_a_known_file_stay_as_they_are() -> None:
    """What was written once must be found again: these are fixed for good."""
    digests = [sha256(text).digest() for text in (b"a", b"b", b"a")]
    for remembered in (0, 10):
        found = [handle.hex() for handle, _ in RowHandles(KEY, remembered).pairs([(digests, [b""] * 3)])]
        assert found == [
            "ca978112ca1bbdcafac231b39a23dc4d",
            "3e23e8160039594a33894f6564e1b134",
            "ce78815393853413ab9d3bcbe842b7f3",
        ]


def test_nothing_comes_of_nothing() -> None:
    assert list(RowHandles(KEY, 0).pairs([])) == []


def _peak(remembered: int, rows: int) -> int:
    def made() -> Iterator[tuple[list[bytes], list[bytes]]]:
        for _ in range(rows // 500):
            yield [os.urandom(32) for _ in range(500)], [b"row"] * 500

    tracemalloc.start()
    try:
        assert sum(1 for _ in RowHandles(KEY, remembered).pairs(made())) == rows
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_handles, "_SPOOL_BYTES", 100_000)
    bounded, remembered = (_peak(kept, 20_000) - _peak(kept, 10_000) for kept in (0, 10**6))
    assert bounded < 0.3 * remembered
