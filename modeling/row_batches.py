"""Rows as they come from a file's reader, many at a time: their cells, digests and how they stand in a frame."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from modeling.core.segments import pack_row, pack_texts
from modeling.core.tables import Row
from modeling.core.tables_fast import Block
from modeling.units import RowDigests

ROWS_AT_ONCE = 1_000


class Batch(Protocol):
    """Some rows in file order."""

    rows: int
    last_line: int

    def column(self, at: int) -> list[Any]:
        """Each row's value in one column."""

    def digests(self, digests: RowDigests) -> list[bytes]:
        """Each row's digest."""

    def masked_digests(self, digests: RowDigests) -> list[bytes]:
        """Those of the rows that were masked, as they stand in a frame."""

    def packed(self) -> list[bytes]:
        """Each row as it stands in a frame."""


class RowBatch:
    """Rows by their values."""

    def __init__(self, rows: list[Row]) -> None:
        self._rows = rows
        self.rows = len(rows)
        self.last_line = rows[-1].line

    def column(self, at: int) -> list[Any]:
        """Each row's value in one column."""
        return [row.values[at] for row in self._rows]

    def digests(self, digests: RowDigests) -> list[bytes]:
        """Each row's digest."""
        return digests.of_rows(row.values if row.before is None else row.before for row in self._rows)

    def masked_digests(self, digests: RowDigests) -> list[bytes]:
        """Those of the rows that were masked, as they stand in a frame."""
        return digests.of_rows(row.values for row in self._rows if row.before is not None)

    def packed(self) -> list[bytes]:
        """Each row as it stands in a frame."""
        return [pack_row(row.line, row.values, row.raw) for row in self._rows]


class BlockBatch:
    """Rows as text. Raises FileRefused when the cells are not as many as the header's."""

    def __init__(self, block: Block) -> None:
        self._block = block
        self._lines = block.lines()
        self._quoted = block.check(self._lines)
        self.rows = len(block)
        self.last_line = block.line + len(block) - 1

    def column(self, at: int) -> list[Any]:
        """Each row's value in one column."""
        mark, quoted = self._block.delimiter, self._quoted
        if not quoted:
            return [line.split(mark, at + 1)[at] for line in self._lines]
        return [
            quoted[row][at] if row in quoted else line.split(mark, at + 1)[at]
            for row, line in enumerate(self._lines)
        ]

    def digests(self, digests: RowDigests) -> list[bytes]:
        """Each row's digest."""
        return digests.of_block(self._lines, self._block.delimiter, self._quoted)

    def masked_digests(self, digests: RowDigests) -> list[bytes]:
        """None: a block in which something was masked comes as rows."""
        return []

    def packed(self) -> list[bytes]:
        """Each row as it stands in a frame."""
        return pack_texts(self._block, self._lines)


def batches(pieces: Iterable[Row | Block | list[Row]]) -> Iterator[Batch]:
    """Blocks and lists as they are, single rows in batches."""
    single: list[Row] = []
    for piece in pieces:
        if isinstance(piece, Row):
            single.append(piece)
        if single and (not isinstance(piece, Row) or len(single) >= ROWS_AT_ONCE):
            yield RowBatch(single)
            single = []
        if isinstance(piece, Block):
            yield BlockBatch(piece)
        elif isinstance(piece, list) and piece:
            yield RowBatch(piece)
    if single:
        yield RowBatch(single)
