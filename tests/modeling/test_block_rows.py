"""Rows that come in blocks of text get the digests, handles, marks and units of rows that come one by one."""

from __future__ import annotations

import io
import os
import random
from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

import pytest
from cryptography.exceptions import InvalidTag

from modeling import grouping, units
from modeling.actions import segmenting
from modeling.actions.segmenting import Cut, SegmentWriting, Written
from modeling.core.segments import FrameReader, KeyRing, Place, read_frames
from modeling.core.tables import Row
from modeling.grouping import Spool, Tape
from modeling.row_batches import BlockBatch
from modeling.units import HANDLE_BYTES, PersonHandles, RowDigests, person_handle, row_digest
from tests.core.csv_pieces import read, texts

KEY = b"k" * 32
PLACE = Place("tenant-1", "dataset-1", 1)
FOLDED = "a,b,c\n" + "".join(
    f"{one},{two},x{three}\n"
    for one in ("Zoë", "ZOE\u0308", " a", "a  b", "\u212b", "Ａ", "straße", "", "a\u00a0 b")
    for two in ("Kelvin \u212a", "İ", "ﬁn", "x\u2003y", "\ttab\t", "UP", "x\u0085", "\u1680")
    for three in ("", "，", "\u037e", " ", "\u2028")
)


def test_it_works() -> None:
    seen = read(b"id,note\n1,One\n2,TWO\n", is_fast=True)
    (block,) = seen.blocks
    assert BlockBatch(block).digests(RowDigests(KEY)) == [row_digest(KEY, row.values) for row in seen.rows]


def test_digests_of_blocks_are_those_of_rows() -> None:
    compared = 0
    for text in (FOLDED, FOLDED.replace(",", ";"), FOLDED.upper(), *texts(9, 400)):
        for block in read(text.encode(), is_fast=True).blocks:
            expected = [row_digest(KEY, row.values) for row in block.rows()]
            assert BlockBatch(block).digests(RowDigests(KEY)) == expected, text
            compared += len(expected)
    assert compared > 1_500


def test_digests_with_a_letter_for_a_delimiter() -> None:
    for delimiter in ("A", "a", "k", " ", "."):
        text = FOLDED.replace(",", delimiter).replace(
            "a" + delimiter + "b" + delimiter + "c", f"1{delimiter}2{delimiter}3", 1
        )
        for block in read(text.encode(), is_fast=True, delimiter=delimiter).blocks:
            expected = [row_digest(KEY, row.values) for row in block.rows()]
            assert BlockBatch(block).digests(RowDigests(KEY)) == expected


def test_handles_of_many_are_those_of_one() -> None:
    names: list[Any] = ["p1", " P1 ", "Zoë", None, "", ["x"], {"a": 1}, "x" * 200, *map(str, range(50))]
    assert PersonHandles(KEY).of(names * 2) == [person_handle(KEY, name) for name in names * 2]


def written(
    pieces: Any, cut: Cut, monkeypatch: pytest.MonkeyPatch
) -> tuple[Written, list[tuple[bytes, Row]]]:
    """What is written of some pieces, and the rows in it, opened again."""
    monkeypatch.setattr(segmenting, "handle_key", lambda tenant: KEY)
    sink, ring = io.BytesIO(), KeyRing(KEY, "dataset-1")
    writing = SegmentWriting(cast(Any, SimpleNamespace()), cast(Any, sink), PLACE, ring)
    result = writing.write(pieces, cut)
    keys = {handle: ring.open(handle, wrapped) for handle, wrapped in result.new_keys}
    reader = FrameReader(PLACE)
    frames = read_frames(io.BytesIO(sink.getvalue()))
    return result, [(frame.handle, row) for frame in frames for row in reader.open(frame, keys[frame.handle])]


@pytest.mark.parametrize(
    "cut",
    [Cut(0, is_catalogue=False, label_at=2), Cut(None, is_catalogue=False), Cut(None, is_catalogue=True)],
)
def test_what_is_sealed_is_the_same(cut: Cut, monkeypatch: pytest.MonkeyPatch) -> None:
    source = random.Random(2)
    lines = [
        f'p{source.randrange(40)},"n, {n % 7}",{n % 3}\n' if n % 4 else f'"p{n % 9}",é,1\n'
        for n in range(600)
    ]
    content = ("who,note,label\n" + "".join(lines) + 'p1,"two\nlines",2\nragged\n').encode()
    seen = read(content, is_fast=True)
    assert 0 < seen.in_blocks < len(seen.rows)
    blocks = {block.line: block for block in seen.blocks}
    inside = {line for block in seen.blocks for line in range(block.line, block.line + len(block))}
    pieces = [blocks.get(row.line, row) for row in seen.rows if row.line in blocks or row.line not in inside]
    fast, in_blocks = written(pieces, cut, monkeypatch)
    slow, one_by_one = written(seen.rows, cut, monkeypatch)
    assert in_blocks == one_by_one
    assert Counter(row.line for _, row in in_blocks) == Counter(row.line for row in seen.rows)
    for name in ("rows", "units", "lines", "rows_without_unit", "marks", "labels"):
        assert getattr(fast, name) == getattr(slow, name), name


def test_a_person_with_more_rows_than_fit_in_memory_is_streamed(settings: Any, tmp_path: Any) -> None:
    settings.DATA_DIR = tmp_path
    spool = Spool(memory_bytes=40_000)
    others = [bytes([7]) + os.urandom(HANDLE_BYTES - 1) for _ in range(5)]
    crowd, expected = b"\7" * HANDLE_BYTES, Counter[bytes]()
    for n in range(2_000):
        handle = others[n % 5] if n % 10 == 0 else crowd
        spool.add_all([handle + n.to_bytes(4, "big") + b"x" * 40])
        expected[handle] += 1
    groups = {}
    for handle, records in spool.groups(HANDLE_BYTES):
        assert handle not in groups
        groups[handle] = [record[:4] for record in records]
    assert {handle: len(records) for handle, records in groups.items()} == expected
    assert all(records == sorted(records) for records in groups.values())


def test_spools_and_tapes_hold_sealed_runs_only(
    settings: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.DATA_DIR = tmp_path
    monkeypatch.setattr(grouping, "TAPE_BYTES", 1_000)
    tape, pairs = Tape(), [(bytes([n]) * 16, b"canary-" + bytes([n]) * 53) for n in range(200)]
    for pair in pairs:
        tape.append(pair)
    assert list(tape) == pairs == list(tape)
    assert len(tape) == 200
    runs = tape._file
    assert runs is not None
    runs._file.seek(0)
    content = runs._file.read()
    assert len(content) > 14_000
    assert b"canary" not in content
    runs._file.seek(100)
    runs._file.write(bytes([content[100] ^ 1]))
    with pytest.raises(InvalidTag):
        list(tape)


def test_a_wrong_fold_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: without the second look at blanks, digests differ."""
    monkeypatch.setattr(units, "_odd_lines", lambda text, data, delimiter: set())
    with pytest.raises(AssertionError):
        test_digests_of_blocks_are_those_of_rows()
