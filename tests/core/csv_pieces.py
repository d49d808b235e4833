"""Odd and regular CSV texts from a seed, and a file read both ways: by blocks and line by line."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from modeling.core import tables_fast
from modeling.core.file_errors import Budget, FileRefused, Findings, RowError
from modeling.core.tables import Layout, Reading, Row, open_table
from modeling.core.tables_fast import Block, FastTable, unpack

tables_fast.prepare()
CELLS = (
    "",
    "a",
    "1.5",
    "é€",
    "x y",
    " z",
    "a  b",
    '"',
    '""',
    '"a"',
    '"b"c',
    "'",
    "'q'",
    ",",
    ";",
    "\t",
    "\n",
    "\r",
)
ODD_CELLS = (
    "\r\n",
    "\0",
    '"a, b"',
    '"a ""b"""',
    '"two\nlines"',
    '"two\r\nlines"',
    'six "q"',
    '"open',
    "\u2028",
    "ﬁ，",
)
HEADS = ("a,b,c", "a;b;c", "a\tb\tc", "a|b|c", "only", "'a','b','c'", '"a","b","c"')


@dataclass(frozen=True)
class Read:
    """What came of a file: rows, errors, layout and tail, or why it was refused; and how many rows came in blocks."""

    rows: list[Row]
    errors: list[RowError]
    by_rule: dict[str, int]
    layout: Layout | None
    tail: str
    refused: RowError | None
    in_blocks: int = 0
    blocks: Sequence[Block] = ()

    def same(self) -> tuple[Any, ...]:
        """What must not depend on how the file was read; rows before a refusal are thrown away."""
        rows = [] if self.refused else self.rows
        return rows, self.errors, self.by_rule, self.layout, self.tail, self.refused


def read(content: bytes, *, is_fast: bool, chunk: int = 1 << 20, fewest: int = 1, **declared: Any) -> Read:
    """Read a file; fast means in blocks that travel as they do between child and parent."""
    findings = Findings()
    rows: list[Row] = []
    layout: Layout | None = None
    in_blocks, tail = 0, ""
    blocks: list[Block] = []
    budget = declared.pop("budget", Budget())
    try:
        chunks = (content[at : at + chunk] for at in range(0, len(content), chunk))
        table = open_table(chunks, Reading("x.csv", budget=budget, **declared), findings)
        layout = table.layout
        if not is_fast or not isinstance(table, FastTable):
            slow = table._table if isinstance(table, FastTable) else table
            rows = list(slow)
            tail = slow.tail
        else:
            for piece in table.pieces(fewest):
                if isinstance(piece, Block):
                    blocks.append(unpack(piece.packed(), table.layout))
                    got = blocks[-1].rows()
                    in_blocks += len(got)
                    rows += got
                else:
                    rows.append(piece)
            tail = table.tail
    except FileRefused as refused:
        return Read(rows, findings.kept, dict(findings.by_rule), layout, tail, refused.error, in_blocks)
    return Read(rows, findings.kept, dict(findings.by_rule), layout, tail, None, in_blocks, blocks)


def texts(seed: int, count: int) -> Iterator[str]:
    """Small CSV texts: mostly regular ones, with something odd in some."""
    source = random.Random(seed)
    for _ in range(count):
        head = source.choice(HEADS)
        mark = next((mark for mark in ",;\t|" if mark in head), ",")
        newline = source.choice(("\n", "\n", "\r\n"))
        oddness = source.choice((0.0, 0.02, 0.1, 0.5))
        lines = [head]
        for _ in range(source.randrange(0, 12)):
            width = head.count(mark) + 1 + (source.choice((-1, 1)) if source.random() < oddness else 0)
            lines.append(mark.join(_cell(source, mark, oddness) for _ in range(width)))
            if source.random() < oddness / 2:
                lines.append("")
        text = "".join(
            line + (newline if source.random() >= oddness / 3 else source.choice(("\n", "\r\n", "\r")))
            for line in lines
        )
        yield text[:-1] if source.random() < 0.3 else text


def _cell(source: random.Random, mark: str, oddness: float) -> str:
    if source.random() < oddness:
        return source.choice((*CELLS, *ODD_CELLS))
    text = "".join(
        source.choices(("a", "é", " ", "42", "€", "'", ".", "Ł", mark, '"'), k=source.randrange(5))
    )
    if mark in text or '"' in text or source.random() < 0.2:
        return '"' + text.replace('"', '""') + '"'
    return text
