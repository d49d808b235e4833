"""The structure of CSV lines found with numpy: which are odd, which hold quotes, and which need their raw text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_NEWLINE, _RETURN = 10, 13
Positions = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a regular row looks like; `width` in cells, `line_bytes` the most that a line may have."""

    delimiter: bytes
    quote: bytes  # b"" when cells are never quoted
    width: int
    is_crlf: bool
    line_bytes: int


@dataclass(frozen=True, slots=True)
class Cut:
    """Lines [n]: first byte, place after the last, and flags. A line that is not odd is one good row."""

    starts: Positions
    stops: Positions
    odd: Flags
    quoted: Flags  # holds quotation marks, all of them in order
    raw: Flags  # has quotation marks where `render` would write none


def look(data: bytes, dialect: Dialect) -> Cut:
    """Cut UTF-8 text that ends with a newline. Whatever is not plainly one good row is called odd."""
    text = np.frombuffer(data, np.uint8)
    is_end = text == _NEWLINE
    marks = np.flatnonzero(is_end | (text == dialect.delimiter[0]))
    at = np.flatnonzero(is_end[marks])
    ends = marks[at]
    starts = np.empty_like(ends)
    starts[0], starts[1:] = 0, ends[:-1] + 1
    cells = np.diff(at, prepend=-1)
    odd = ends - starts >= dialect.line_bytes
    odd |= ends - starts <= int(dialect.is_crlf)  # blank
    _flag_returns(data, text, ends, odd, dialect)
    if b"\0" in data:
        odd[np.searchsorted(ends, np.flatnonzero(text == 0))] = True
    quoted = raw = np.zeros(len(ends), np.bool_)
    if dialect.quote and dialect.quote in data:
        found = _Quotes(text, starts, ends, dialect)
        quoted = found.count > 0
        raw, inner = found.judge(marks, cells, odd)
        cells = cells - inner
    odd |= cells != dialect.width
    return Cut(starts, ends + 1, odd, quoted, raw)


def _flag_returns(data: bytes, text: Any, ends: Positions, odd: Flags, dialect: Dialect) -> None:
    """Carriage returns stand before every newline of a CR LF file, and nowhere else."""
    if dialect.is_crlf:
        odd |= (
            text[ends - 1] != _RETURN
        )  # the first line end may be at 0: then the line is blank, so odd already
    if b"\r" not in data:
        return
    found = np.flatnonzero(text == _RETURN)
    lines = np.searchsorted(ends, found)
    if dialect.is_crlf:
        lines = lines[found != ends[lines] - 1]
    odd[lines] = True


class _Quotes:
    """The quotation marks of a text; within a line they open and close in turns."""

    def __init__(self, text: Any, starts: Positions, ends: Positions, dialect: Dialect) -> None:
        self.at = np.flatnonzero(text == dialect.quote[0])
        self.line = np.searchsorted(ends, self.at)
        self.count = np.bincount(self.line, minlength=len(ends))
        self.first = np.cumsum(self.count) - self.count
        turn = np.arange(len(self.at)) - self.first[self.line]
        self.opens = (turn & 1) == 0
        follows = np.zeros(len(self.at), np.bool_)
        follows[1:] = self.at[1:] == self.at[:-1] + 1
        self.doubled = self.opens & (turn > 0) & follows
        self.cell = np.cumsum(self.opens & ~self.doubled) - 1  # which quoted cell a mark belongs to
        before, after = text[self.at - 1], text[self.at + 1]
        good = self.doubled | (self.at == starts[self.line]) | (before == dialect.delimiter[0])
        ends_well = (after == dialect.delimiter[0]) | (after == _NEWLINE) | (after == dialect.quote[0])
        if dialect.is_crlf:
            ends_well |= after == _RETURN
        self.bad = np.where(self.opens, ~good, ~ends_well)

    def judge(self, marks: Positions, cells: Positions, odd: Flags) -> tuple[Flags, Positions]:
        """Flag odd lines; returns which lines need their raw text, and delimiters inside quotes by line."""
        odd |= (self.count & 1) == 1
        odd[self.line[self.bad]] = True
        lines = len(self.count)
        inside = np.flatnonzero(np.repeat(self.count > 0, cells))
        places = marks[inside]
        owner = np.repeat(np.arange(lines), cells)[inside]
        earlier = np.searchsorted(self.at, places)
        quoted = ((earlier - self.first[owner]) & 1) == 1
        inner = np.bincount(owner[quoted], minlength=lines)
        needed = np.zeros(int(self.cell[-1]) + 1, np.bool_)
        needed[self.cell[earlier[quoted] - 1]] = True
        needed[self.cell[self.doubled]] = True
        raw = np.zeros(lines, np.bool_)
        raw[self.line[self.opens & ~self.doubled & ~needed[self.cell]]] = True
        return raw, inner
