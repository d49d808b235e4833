"""CSV read in blocks gives exactly the rows, raw texts, errors and layout of the reader that goes line by line."""

from __future__ import annotations

import os
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling.core import tables_fast_cut
from modeling.core.file_errors import Budget, FileRefused
from modeling.core.tables_fast import unpack
from tests.core.csv_pieces import CELLS, HEADS, ODD_CELLS, read, texts

CASES = int(os.environ.get("CSV_CASES", "1500"))
HEAD = "a,b\n"


def both(content: bytes, **settings: Any) -> int:
    """Read both ways and compare; returns how many rows came in blocks."""
    fast, slow = read(content, is_fast=True, **settings), read(content, is_fast=False, **settings)
    assert fast.same() == slow.same(), content
    return fast.in_blocks


def test_it_works() -> None:
    fast = read(b'a,b\n1,2\n"x, y",3\n"z",4\n', is_fast=True)
    assert [(row.line, row.values, row.raw) for row in fast.rows] == [
        (2, ["1", "2"], None),
        (3, ["x, y", "3"], None),
        (4, ["z", "4"], '"z",4\n'),
    ]
    assert fast.in_blocks == 3


def test_seeded_texts_read_the_same_both_ways() -> None:
    blocks = 0
    for at, text in enumerate(texts(5, CASES)):
        source = random.Random(at)
        encoding = source.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1"))
        content = text.encode(encoding, "replace")
        declared = {"encoding": "latin-1"} if encoding == "latin-1" else {}
        blocks += both(
            content, chunk=source.choice((7, 64, 1 << 20)), fewest=source.choice((1, 3)), **declared
        )
    assert blocks > CASES  # the fast way was taken


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(HEADS),
    st.lists(st.sampled_from((*CELLS, *ODD_CELLS, "\n", "\r\n", ",", ";", "\t", "|")), max_size=40),
    st.sampled_from((3, 1 << 20)),
)
def test_any_pieces_read_the_same_both_ways(head: str, pieces: list[str], chunk: int) -> None:
    both((head + "\n" + "".join(pieces)).encode(), chunk=chunk)


@settings(max_examples=100, deadline=None)
@given(
    st.binary(max_size=200),
    st.sampled_from(("", "none", "'", "€")),
    st.sampled_from(("", ",", " ", "x", "é")),
)
def test_any_bytes_read_the_same_both_ways(content: bytes, quote: str, delimiter: str) -> None:
    both(b"a,b\n1,2\n" + content, quote=quote, delimiter=delimiter)


@pytest.mark.parametrize(
    "content",
    [
        HEAD + "1,2\n" * 100 + "\n\n\n" + "3,4\n" * 100,
        HEAD + "1,2\n" * 100 + '"open,3\n' + "3,4\n" * 100,
        HEAD + "1,2\n" * 100 + '5,"two\nlines"\n' + "3,4\n" * 100,
        HEAD + '"1","2"\n' * 200,
        HEAD + "1,2\n" * 100 + "x" * 3_000 + ",5\n" + "3,4\n" * 100,
        HEAD + "1,2\n" * 100 + "\n" * 20_000 + "3,4\n",
        "a,b\r\n" + "1,2\r\n" * 100 + "1,2\n" + "1,2\r\n" * 100,
        "a\n" + "1\n\n" * 100,
        HEAD + "1,2\n" * 100 + "1,2",
    ],
)
def test_larger_files_read_the_same_both_ways(content: str) -> None:
    for chunk in (1_000, 1 << 20):
        both(content.encode(), chunk=chunk, budget=Budget(row_bytes=2_000))
        both(content.encode(), chunk=chunk, fewest=32)


def test_the_comparison_would_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Control: a cut that calls every line regular, or none raw, does not pass."""
    look = tables_fast_cut.look

    def blind(data: bytes, dialect: tables_fast_cut.Dialect) -> tables_fast_cut.Cut:
        cut = look(data, dialect)
        return tables_fast_cut.Cut(cut.starts, cut.stops, cut.odd, cut.quoted, cut.raw & False)

    monkeypatch.setattr(tables_fast_cut, "look", blind)
    with pytest.raises(AssertionError):
        both(HEAD.encode() + b'"1",2\n' * 5)


@pytest.mark.parametrize(
    "change",
    [
        {0: 0},
        {0: "1"},
        {1: 3},
        {2: "1,2\n3,4"},
        {2: b"1,2\n3,\xff"},
        {2: b"1,2\n3,\x00"},
        {2: b"1,2\n3,\r"},
        {2: b"1,2\n3"},
        {2: b'1,2\n"3",4'},
        {3: b"\x05\0\0\0"},
        {3: b"\x01\0\0\0\0\0\0\0"},
        {3: b"xyz"},
        {4: b"\x02\0\0\0"},
    ],
)
def test_a_block_that_no_honest_child_sends_is_refused(change: dict[int, Any]) -> None:
    layout = read(b"a,b\n1,2\n3,4\n", is_fast=True).layout
    assert layout is not None
    packed: list[Any] = [2, 2, b"1,2\n3,4", b"", b""]
    assert len(unpack(packed, layout).rows()) == 2
    for at, value in change.items():
        packed[at] = value
    with pytest.raises(FileRefused) as caught:
        unpack(packed, layout).rows()
    assert caught.value.code == "broken_parser"


def test_long_quoted_cells_are_cut() -> None:
    cell = "x, " * 100_000
    content = (HEAD + f'1,"{cell}"\n' * 3).encode()
    rows = read(content, is_fast=True).rows
    assert [row.values[1] for row in rows] == [cell] * 3
