"""Bytes of unknown origin to rows: how a file is to be read, what was found, and the table to iterate.

Pure standard library, so that the limited child process starts fast. Messages never repeat a cell's content.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from modeling.core.file_errors import (
    ERRORS_KEPT,
    Budget,
    FileRefused,
    Findings,
    RowError,
    RowRefused,
    refuse,
)
from modeling.core.text_lines import Lines
from modeling.core.unpacking import unpack

__all__ = [
    "ERRORS_KEPT",
    "Budget",
    "FileRefused",
    "Findings",
    "Layout",
    "Lines",
    "Reading",
    "Row",
    "RowError",
    "RowRefused",
    "Table",
    "open_table",
    "refuse",
    "render",
]
SAMPLE_ROWS = 10_000
SAMPLE_BYTES = 4 << 20
FORMATS = ("csv", "jsonl", "parquet")
NO_QUOTES = "none"


@dataclass(frozen=True)
class Reading:
    """How to read: the file's name, what its uploader declared ("" = guess; quote "none" = no quoting), the budget."""

    name: str = ""
    encoding: str = ""
    delimiter: str = ""
    quote: str = ""
    format: str = ""
    budget: Budget = field(default_factory=Budget)


@dataclass(frozen=True)
class Layout:
    """What is needed to write the file again: `lead` is the text before the first row, `style` JSON's spacing.

    `quote` is "" when cells are never quoted. `found` says by a word why it is read so, for format, encoding, delimiter
    and quote (declared, mark, likely, …), and as what it was packed.
    """

    format: str  # csv | jsonl; rows of Parquet are written as jsonl
    encoding: str
    newline: str
    columns: tuple[str, ...]
    delimiter: str = ""
    style: int = 0
    lead: str = ""
    quote: str = '"'
    found: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """A plain dictionary; `Layout.from_json` is its inverse."""
        return {**asdict(self), "columns": list(self.columns)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Layout:
        """The layout a dictionary describes; unknown keys are left out."""
        known = {name: data[name] for name in cls.__dataclass_fields__ if name in data}
        return cls(**{**known, "columns": tuple(data["columns"])})


@dataclass(frozen=True, slots=True)
class Row:
    """One accepted row: its line, values in column order, and raw text when `render` would write it otherwise."""

    line: int
    values: list[Any]
    raw: str | None = None
    before: list[Any] | None = (
        None  # the values before personal data was masked: whose row it is hangs on them
    )


class Table(Protocol):
    """A file being read: iterate the rows once; `layout` is known before, `tail` (text after the last row) after."""

    layout: Layout
    tail: str

    def __iter__(self) -> Iterator[Row]:
        """Rows in file order; bad ones are left out and noted in `Findings`."""


def open_table(chunks: Iterable[bytes], reading: Reading, findings: Findings) -> Table:
    """Begin to read a file of text, packed or not; raises FileRefused when no row of it can be read."""
    from modeling.core import tables_fast
    from modeling.core.tables_csv import CsvTable
    from modeling.core.tables_jsonl import JsonTable

    source = unpack(chunks, reading.name, reading.budget)
    lines = Lines(source.chunks, reading.encoding, reading.budget)
    format, why = _format(lines, source.name, reading.format)  # noqa: A001
    found = {"packed": source.packed, "format": why, "encoding": lines.encoding_why}
    if format == "jsonl":
        return JsonTable(lines, reading, findings, found)
    table: Table = CsvTable(lines, reading, findings, found)
    return tables_fast.faster(table, lines, reading) or table


def _format(lines: Lines, name: str, declared: str) -> tuple[str, str]:
    """(csv or jsonl, why): declared | beginning | name | default."""
    beginning = lines.prefix.lstrip("\ufeff \t\r\n")
    suffix = name.rpartition(".")[2].lower()
    if declared == "parquet":
        raise refuse("format", "This is no Parquet file. Read it as CSV or JSON lines.", line=1)
    if declared in FORMATS:
        return declared, "declared"
    if beginning.startswith("[") and suffix not in ("csv", "tsv"):
        fix = "The file is one JSON list. Write each object on a line of its own (JSON lines)."
        raise refuse("json_list", fix, line=1, column=1)
    if beginning.startswith("{"):
        return "jsonl", "beginning"
    if suffix in ("jsonl", "ndjson"):
        return "jsonl", "name"
    return "csv", "name" if suffix in ("csv", "tsv") else "default"


def render(layout: Layout, values: list[Any]) -> str:
    """The text of one row as Cloister writes it, with its line end."""
    from modeling.core.tables_csv import render_csv
    from modeling.core.tables_jsonl import render_json

    return render_csv(layout, values) if layout.format == "csv" else render_json(layout, values)
