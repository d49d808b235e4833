"""Bytes of unknown origin to rows: budgets, errors by line and column, decoding into lines; CSV and JSONL build on it.

Pure standard library, so that the limited child process starts fast. Messages never repeat a cell's content.
"""

from __future__ import annotations

import codecs
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

ERRORS_KEPT = 1_000
SAMPLE_ROWS = 10_000
SAMPLE_BYTES = 4 << 20
PREFIX_BYTES = 1 << 16
BLANK_CHARACTERS = 1 << 14
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1", "cp1252")
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "This is a zip archive or an Excel workbook. Export the sheet as CSV and upload that."),
    (b"\x1f\x8b", "This file is compressed with gzip. Unpack it and upload the CSV or JSONL inside."),
    (b"PAR1", "This is a Parquet file. Export it as CSV or JSONL."),
    (b"\xd0\xcf\x11\xe0", "This is an old Office file. Export the sheet as CSV."),
    (b"%PDF", "This is a PDF document. Upload the records as CSV or JSONL."),
    (b"BZh", "This file is compressed with bzip2. Unpack it first."),
    (b"\xfd7zXZ", "This file is compressed with xz. Unpack it first."),
    (b"\x28\xb5\x2f\xfd", "This file is compressed with Zstandard. Unpack it first."),
    (b"\x89PNG", "This is an image. Upload the records as CSV or JSONL."),
    (b"\xff\xd8\xff", "This is an image. Upload the records as CSV or JSONL."),
    (b"\x7fELF", "This is a program. Upload the records as CSV or JSONL."),
    (b"SQLite format 3", "This is a database file. Export the table as CSV."),
)


@dataclass(frozen=True)
class Budget:
    """What one file may cost: decoded bytes in all, bytes of one row, columns, rows."""

    decoded_bytes: int = 4 << 30
    row_bytes: int = 1 << 20
    columns: int = 1_024
    rows: int = 50_000_000


@dataclass(frozen=True)
class RowError:
    """What is wrong where: line from 1, column from 1 (0: the whole line), the broken rule and what to do.

    The column is the cell's number where the rule is about a CSV cell (ragged, nul, column names), else the character.
    """

    line: int
    column: int
    rule: str
    fix: str


class FileRefused(Exception):
    """The file as a whole cannot be read; `error` says where and what to do."""

    def __init__(self, error: RowError) -> None:
        super().__init__(error.fix)
        self.error = error
        self.code = error.rule
        self.message = error.fix


class RowRefused(Exception):
    """One row cannot be read; the others can."""

    def __init__(self, column: int, rule: str, fix: str) -> None:
        super().__init__(rule)
        self.column = column
        self.rule = rule
        self.fix = fix


@dataclass(frozen=True)
class Reading:
    """How to read: the file's name, what its uploader declared ("" = guess), and the budget."""

    name: str = ""
    encoding: str = ""
    delimiter: str = ""
    budget: Budget = field(default_factory=Budget)


@dataclass(frozen=True)
class Layout:
    """What is needed to write the file again: `lead` is the text before the first row, `style` JSON's spacing."""

    format: str  # csv | jsonl
    encoding: str
    newline: str
    columns: tuple[str, ...]
    delimiter: str = ""
    style: int = 0
    lead: str = ""

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


class Table(Protocol):
    """A file being read: iterate the rows once; `layout` is known before, `tail` (text after the last row) after."""

    layout: Layout
    tail: str

    def __iter__(self) -> Iterator[Row]:
        """Rows in file order; bad ones are left out and noted in `Findings`."""


class Findings:
    """Row errors: the first 1,000 kept, all counted by rule."""

    def __init__(self) -> None:
        self.kept: list[RowError] = []
        self.by_rule: Counter[str] = Counter()

    def add(self, error: RowError) -> None:
        """Note one bad row."""
        self.by_rule[error.rule] += 1
        if len(self.kept) < ERRORS_KEPT:
            self.kept.append(error)


def refuse(rule: str, fix: str, *, line: int = 0, column: int = 0) -> FileRefused:
    """A FileRefused to raise."""
    return FileRefused(RowError(line, column, rule, fix))


def guess_encoding(prefix: bytes, declared: str) -> str:
    """The codec's name: declared, by byte order mark, by the pattern of zero bytes, otherwise UTF-8."""
    for magic, fix in _MAGIC:
        if prefix.startswith(magic):
            raise refuse("not_text", fix)
    if prefix[:1] == b"\x80" and prefix[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise refuse(
            "not_text", "This is a Python pickle, never opened here. Export the rows as CSV or JSONL."
        )
    if declared and declared not in ENCODINGS:
        raise refuse("encoding", f"Declare one of these encodings: {', '.join(ENCODINGS)}.")
    if prefix.startswith((b"\xff\xfe\x00\x00", b"\x00\x00\xfe\xff")):
        raise refuse("encoding", "The file is in UTF-32. Save it as UTF-8.", line=1)
    if declared in ("utf-8", "utf-8-sig") or prefix.startswith(codecs.BOM_UTF8):
        return "utf-8"  # a byte order mark is kept apart by Lines
    if declared not in ("", "utf-16"):
        return declared
    if prefix.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16-le" if prefix.startswith(codecs.BOM_UTF16_LE) else "utf-16-be"
    even, odd = prefix[:4096:2].count(0), prefix[1:4096:2].count(0)
    half = max(1, len(prefix[:4096]) // 2)
    if odd > 0.4 * half and even < 0.05 * half:
        return "utf-16-le"
    return "utf-16-be" if even > 0.4 * half and odd < 0.05 * half else "utf-8"


def guess_newline(text: str) -> str:
    """The line end the beginning of the file uses: "\\r\\n", "\\n", or "\\r" when there is no other."""
    at = text.find("\n")
    if at < 0:
        return "\r" if "\r" in text[:-1] else "\n"
    return "\r\n" if text[at - 1 : at] == "\r" else "\n"


class Lines:
    """Decoded lines with their ends, counted from 1, within the budget of decoded bytes."""

    def __init__(self, chunks: Iterable[bytes], reading: Reading) -> None:
        self._chunks = iter(chunks)
        self._budget = reading.budget
        held = b""
        for chunk in self._chunks:
            held += chunk
            if len(held) >= PREFIX_BYTES:
                break
        if not held.strip(b"\xef\xbb\xbf\xff\xfe\x00 \t\r\n"):
            raise refuse("empty", "The file is empty. Upload a CSV with a header and rows, or JSON lines.")
        self.encoding = guess_encoding(held[:PREFIX_BYTES], reading.encoding)
        self._decoder = codecs.getincrementaldecoder(self.encoding)("strict")
        self.number = 0  # of the line last handed out
        self._decoded_bytes = 0
        self._rest = ""
        self._ended = False
        first = self._decode(held)
        self.mark = (
            "\ufeff" if first.startswith("\ufeff") else ""
        )  # the byte order mark, written back on rebuilding
        first = first[len(self.mark) :]
        self.prefix = first[:PREFIX_BYTES]
        self.newline = guess_newline(self.prefix)
        self._split = "\r" if self.newline == "\r" else "\n"
        self._ready: Iterator[str] = self._cut(first)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._ready, None)
        while line is None:
            if self._ended:
                raise StopIteration
            self._more()
            line = next(self._ready, None)
        self.number += 1
        return line

    def keep_blank(self, blank: str) -> str:
        """The blank lines before a row, as given; raises FileRefused when there are too many to be an accident."""
        if len(blank) > BLANK_CHARACTERS:
            raise refuse("blank_lines", "Remove the run of blank lines that ends here.", line=self.number)
        return blank

    def _more(self) -> None:
        chunk = next(self._chunks, None)
        if chunk is not None:
            self._ready = self._cut(self._decode(chunk))
            return
        self._ended = True
        last = self._rest + self._decode(b"", final=True)
        self._rest = ""
        self._ready = iter([last] if last else [])

    def _cut(self, text: str) -> Iterator[str]:
        parts = (self._rest + text).split(self._split)
        self._rest = parts.pop()
        if len(self._rest) > self._budget.row_bytes:
            line = self.number + len(parts) + 1
            raise refuse(
                "row_too_long",
                f"Keep each row under {self._budget.row_bytes:,} characters.",
                line=line,
                column=1,
            )
        end = self._split
        return iter([part + end for part in parts])

    def _decode(self, data: bytes, *, final: bool = False) -> str:
        try:
            text = self._decoder.decode(data, final)
        except UnicodeDecodeError as error:
            raise self._undecodable(error) from None
        self._decoded_bytes += (
            len(text.encode("utf-8", "surrogatepass")) if self.encoding != "utf-8" else len(data)
        )
        if self._decoded_bytes > self._budget.decoded_bytes:
            raise refuse(
                "file_too_large",
                f"Split the file: one may hold {self._budget.decoded_bytes:,} bytes of text.",
            )
        return text

    def _undecodable(self, error: UnicodeDecodeError) -> FileRefused:
        """Where the first byte is that this encoding has no character for."""
        split = getattr(self, "_split", "\n")
        good = self._rest + error.object[: error.start].decode(self.encoding, "replace")
        pending = list(getattr(self, "_ready", ()))
        line = self.number + len(pending) + good.count(split) + 1
        column = len(good) - good.rfind(split)
        fix = f"This is not {self.encoding}. Save the file as UTF-8, or declare its encoding with the upload."
        return refuse("encoding", fix, line=line, column=column)


def open_table(chunks: Iterable[bytes], reading: Reading, findings: Findings) -> Table:
    """Begin to read a file of either format; raises FileRefused when no row of it can be read."""
    from modeling.core.tables_csv import CsvTable
    from modeling.core.tables_jsonl import JsonTable

    lines = Lines(chunks, reading)
    beginning = lines.prefix.lstrip("\ufeff \t\r\n")
    suffix = reading.name.rpartition(".")[2].lower()
    if beginning.startswith("[") and suffix not in ("csv", "tsv"):
        fix = "The file is one JSON list. Write each object on a line of its own (JSON lines)."
        raise refuse("json_list", fix, line=1, column=1)
    if beginning.startswith("{") or suffix in ("jsonl", "ndjson"):
        return JsonTable(lines, reading, findings)
    return CsvTable(lines, reading, findings)


def render(layout: Layout, values: list[Any]) -> str:
    """The text of one row as Cloister writes it, with its line end."""
    from modeling.core.tables_csv import render_csv
    from modeling.core.tables_jsonl import render_json

    return render_csv(layout, values) if layout.format == "csv" else render_json(layout, values)
