"""CSV read many rows at a time: regular lines travel as blocks of text, whatever is odd goes to the slow reader.

A regular line is one row of the header's width, well quoted, without NUL or stray line ends. The slow reader of
tables_csv decides everything else, line by line, so rows, raw texts and errors are the same either way.
"""

from __future__ import annotations

import csv
import re
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from operator import ge, length_hint
from typing import TYPE_CHECKING, Any

from modeling.core.file_errors import Budget, FileRefused, refuse
from modeling.core.tables import Layout, Reading, Row, Table
from modeling.core.tables_csv import dialect
from modeling.core.text_lines import Lines

if TYPE_CHECKING:
    from modeling.core.tables_fast_cut import Cut

FEWEST_LINES = 32  # a shorter run of regular lines is not worth a block
csv.field_size_limit(max(csv.field_size_limit(), Budget().row_bytes))  # 128 KiB otherwise
_CUT = "modeling.core.tables_fast_cut"


@dataclass(frozen=True, slots=True)
class Block:
    """Rows of one line each, the first at `line`. `quoted` and `raw` are rising indexes of rows from 0."""

    line: int
    count: int
    data: bytes  # UTF-8, without the last line's end
    newline: str
    delimiter: str
    quote: str
    width: int
    quoted: array[int]
    raw: array[int]

    def __len__(self) -> int:
        return self.count

    def lines(self) -> list[str]:
        """The rows as they stand in the file, without their ends."""
        return self.data.decode().split(self.newline)

    def cells(self) -> list[list[str]]:
        """The cells [rows][width]. Raises FileRefused when the text is not what its sender said."""
        lines = self.lines()
        quoted = self.check(lines)
        return [quoted[at] if at in quoted else line.split(self.delimiter) for at, line in enumerate(lines)]

    def check(self, lines: list[str]) -> dict[int, list[str]]:
        """The cells of rows with quotation marks, by index; `lines` are `lines()`. Raises FileRefused like `cells`."""
        texts = [lines[at] for at in self.quoted]
        quotes = self.data.count(self.quote.encode()) if self.quote else 0
        if sum(text.count(self.quote) for text in texts) != quotes:
            raise broken()
        reader = csv.reader(texts, strict=True, **dialect(self.delimiter, self.quote))
        try:
            found = dict(zip(self.quoted, reader, strict=True))
        except (csv.Error, ValueError):
            raise broken() from None
        mark, between = self.delimiter, self.width - 1
        plain_ok = all(line.count(mark) == between or at in found for at, line in enumerate(lines))
        quoted_ok = all(len(cells) == self.width for cells in found.values())
        if not (plain_ok and quoted_ok) or (self.width == 1 and "" in lines):
            raise broken()
        return found

    def rows(self) -> list[Row]:
        """The rows as the slow reader gives them."""
        lines = self.lines()
        rows = [Row(line, values) for line, values in enumerate(self.cells(), self.line)]
        for at in self.raw:
            rows[at] = Row(self.line + at, rows[at].values, lines[at] + self.newline)
        return rows

    def packed(self) -> list[Any]:
        """What travels: line, rows, text, indexes."""
        return [self.line, self.count, self.data, self.quoted.tobytes(), self.raw.tobytes()]


def cut_line(line: str, delimiter: str, quote: str) -> list[str]:
    """The cells of one good line without its end."""
    if not quote or quote not in line:
        return line.split(delimiter)
    return next(csv.reader([line], strict=True, **dialect(delimiter, quote)))


def unpack(packed: Any, layout: Layout) -> Block:
    """A block as received: its text and indexes are checked here, cells when they are cut. Raises FileRefused."""
    try:
        line, rows, data, quoted, raw = packed
        marks = [array("I", quoted), array("I", raw)]
        data.decode()
    except (AttributeError, TypeError, ValueError):
        raise broken() from None
    if not (isinstance(data, bytes) and isinstance(line, int) and isinstance(rows, int) and line >= 1):
        raise broken()
    returns = rows - 1 if layout.newline == "\r\n" else 0
    stray = data.count(b"\n") != rows - 1 or data.count(b"\r") != returns or b"\0" in data
    if stray or (returns and data.count(b"\r\n") != returns):
        raise broken()
    for indexes in marks:
        if indexes and (indexes[-1] >= rows or any(map(ge, indexes, indexes[1:]))):
            raise broken()
    width, mark, quote = len(layout.columns), layout.delimiter, layout.quote
    return Block(line, rows, data, layout.newline, mark, quote, width, *marks)


def broken() -> FileRefused:
    """The child said something that it cannot have read."""
    return refuse("broken_parser", "This file could not be read safely. Please report it.")


def prepare() -> None:
    """Load what the fast path needs (numpy); before, every file is read line by line."""
    import modeling.core.tables_fast_cut  # noqa: F401


def faster(table: Any, lines: Lines, reading: Reading) -> FastTable | None:
    """The same table read in blocks, or None where only the slow reader will do."""
    layout: Layout = table.layout
    marks = layout.delimiter + layout.quote
    plain = marks.isascii() and layout.newline in ("\n", "\r\n")
    if _CUT not in sys.modules or not plain:
        return None
    return FastTable(table, lines, reading)


class FastTable:
    """A CsvTable read in pieces; iterating it gives its rows one by one."""

    def __init__(self, table: Table, lines: Lines, reading: Reading) -> None:
        from modeling.core.tables_fast_cut import Dialect

        self._table = table
        self._lines = lines
        self.layout = table.layout
        self.tail = ""
        width, newline = len(table.layout.columns), table.layout.newline
        most = reading.budget.row_bytes
        delimiter, quote = table.layout.delimiter.encode(), table.layout.quote.encode()
        self._dialect = Dialect(delimiter, quote, width, newline == "\r\n", most)

    def __iter__(self) -> Iterator[Row]:
        for piece in self.pieces():
            yield from piece.rows() if isinstance(piece, Block) else (piece,)

    def pieces(self, fewest_lines: int = FEWEST_LINES) -> Iterator[Block | Row]:
        """Blocks and single rows in file order."""
        slow = iter(self._table)
        while data := self._lines.take():
            yield from self._text(data, slow, fewest_lines)
        yield from slow  # what is left is no row: it notes the tail
        self.tail = self._table.tail

    def _text(self, data: bytes, slow: Iterator[Row], fewest: int) -> Iterator[Block | Row]:
        from modeling.core.tables_fast_cut import look

        if not data.endswith(b"\n") or not self._is_plain(data):  # the file's last line, without an end
            text = data.decode(errors="surrogatepass")
            rest = iter([part for part in re.split("(?<=\n)", text) if part])
            self._lines.hand_back(rest, 0)
            for row in slow:
                yield row
                if not length_hint(rest):
                    break
            return
        cut = look(data, self._dialect)
        odd = [*cut.odd.nonzero()[0].tolist(), len(cut.odd)]
        cursor = _Cursor(data, cut)
        following = 0
        while cursor.at < len(cut.odd):
            while odd[following] < cursor.at:
                following += 1
            if odd[following] - cursor.at >= fewest:
                block = self._block(data, cut, cursor.at, odd[following])
                self._lines.hand_back(cursor, len(block))
                cursor.at = odd[following]
                yield block
                continue
            self._lines.hand_back(cursor, 0)
            stop = min(odd[following], len(cut.odd) - 1)
            for row in slow:
                yield row
                if cursor.at > stop:
                    break

    def _is_plain(self, data: bytes) -> bool:
        """Whether it is good UTF-8: some codecs let lone surrogates through."""
        if self.layout.encoding == "utf-8" or b"\xed" not in data:
            return True
        try:
            data.decode()
        except UnicodeDecodeError:
            return False
        return True

    def _block(self, data: bytes, cut: Cut, start: int, stop: int) -> Block:
        newline = self.layout.newline
        text = data[cut.starts[start] : cut.stops[stop - 1] - len(newline)]
        quoted = array("I", cut.quoted[start:stop].nonzero()[0].astype("u4").tobytes())
        raw = array("I", cut.raw[start:stop].nonzero()[0].astype("u4").tobytes())
        mark, quote = self.layout.delimiter, self.layout.quote
        first, width = self._lines.number + 1, self._dialect.width
        return Block(first, stop - start, text, newline, mark, quote, width, quoted, raw)


class _Cursor:
    """Lines of a text that was cut, handed out one by one; `at` is the next one's index."""

    def __init__(self, data: bytes, cut: Cut) -> None:
        self._data = data
        self._starts, self._stops = cut.starts, cut.stops
        self.at = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self.at >= len(self._starts):
            raise StopIteration
        line = self._data[self._starts[self.at] : self._stops[self.at]].decode()
        self.at += 1
        return line
