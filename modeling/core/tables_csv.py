"""CSV rows: delimiter guess, strict quoting, ragged rows and NULs by line and column."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from modeling.core.file_errors import Budget, Findings, RowError, RowRefused, refuse
from modeling.core.tables import NO_QUOTES, Layout, Reading, Row
from modeling.core.text_lines import Lines

DELIMITERS = (",", ";", "\t", "|")
NAME_LENGTH = 200
_SAMPLE_LINES = 200
_EVEN, _NEARLY_ALL = 0.8, 0.9
_SINGLE_QUOTED = re.compile("(?:^|[,;\t|])'[^'\r\n]*'(?=[,;\t|\r\n]|$)")


def guess_delimiter(text: str, quote: str = '"') -> tuple[str, str]:
    """(delimiter, why) that splits the sample's rows into the same number of fields, more than one ("columns").

    "," with "one_column" when none does, "uneven" when the best one leaves rows of other lengths.
    """
    lines = _sample(text)
    best, best_score, is_even = ",", 0.0, False
    for delimiter in DELIMITERS:
        try:
            widths = [len(row) for row in csv.reader(lines, **dialect(delimiter, quote)) if row]
        except csv.Error:
            continue
        if not widths or widths[0] < 2:
            continue
        alike = sum(width == widths[0] for width in widths) / len(widths)
        score = alike + min(widths[0], 50) / 1_000
        if score > best_score:
            best, best_score, is_even = delimiter, score, alike > _EVEN
    return best, "one_column" if best_score == 0 else "columns" if is_even else "uneven"


def guess_quote(text: str) -> tuple[str, str]:
    """(quote, why): "'" when nearly every line has a cell between two of them and none has a double one ("likely")."""
    lines = _sample(text)
    if '"' in text or not lines:
        return '"', "default"
    quoted = sum(bool(_SINGLE_QUOTED.search(line)) for line in lines)
    return ("'", "likely") if len(lines) > 1 and quoted >= _NEARLY_ALL * len(lines) else ('"', "default")


def dialect(delimiter: str, quote: str) -> dict[str, Any]:
    """The csv module's settings for a delimiter and a quotation mark ("" = cells are never quoted)."""
    quoting = {"quotechar": quote} if quote else {"quotechar": None, "quoting": csv.QUOTE_NONE}
    return {"delimiter": delimiter, **quoting}


def _sample(text: str) -> list[str]:
    lines = text.splitlines(keepends=True)[:_SAMPLE_LINES]
    if len(lines) > 1 and not text.endswith(("\n", "\r")):
        lines.pop()  # the sample may end in the middle of a row
    return lines


def render_csv(layout: Layout, values: list[str]) -> str:
    """One row with quotes only where they are needed."""
    quote, special = layout.quote, _special(layout.delimiter, layout.quote)
    if not quote:
        return layout.delimiter.join(values) + layout.newline
    cells = [
        f"{quote}{value.replace(quote, quote * 2)}{quote}" if special.search(value) else value
        for value in values
    ]
    return layout.delimiter.join(cells) + layout.newline


def check_name(name: str, at: int, line: int, seen: set[str]) -> None:
    """Raise FileRefused for a column name that is missing, too long, or there already; it joins `seen`."""
    name = name.strip()
    if not name:
        raise refuse("column_name", "Give every column a name in the first line.", line=line, column=at)
    if "\0" in name:
        raise refuse("nul", "Remove the NUL characters; is this a text file?", line=line, column=at)
    if len(name) > NAME_LENGTH:
        raise refuse(
            "column_name", f"Keep column names under {NAME_LENGTH} characters.", line=line, column=at
        )
    if name in seen:
        raise refuse("duplicate_column", "Two columns have the same name: rename one.", line=line, column=at)
    seen.add(name)


@lru_cache(maxsize=64)
def _special(delimiter: str, quote: str) -> re.Pattern[str]:
    return re.compile(f"[{re.escape(delimiter + quote)}\r\n]")


def _settled(lines: Lines, reading: Reading, found: Mapping[str, str]) -> tuple[str, str, dict[str, str]]:
    """(delimiter, quote, found): what was declared, otherwise guessed, and why."""
    for name, mark in (("delimiter", reading.delimiter), ("quote", reading.quote)):
        if mark and (len(mark) != 1 or mark in "\r\n\0") and not (name == "quote" and mark == NO_QUOTES):
            raise refuse(name, f"Declare a {name} of one character.")
    if reading.quote:
        quote, quote_why = reading.quote.replace(NO_QUOTES, ""), "declared"
    else:
        quote, quote_why = guess_quote(lines.prefix)
    delimiter, why = guess_delimiter(lines.prefix, quote)
    if reading.delimiter:
        delimiter, why = reading.delimiter, "declared"
    if delimiter == quote:
        raise refuse("delimiter", "The delimiter and the quotation mark must be different characters.")
    return delimiter, quote, {**found, "delimiter": why, "quote": quote_why}


class CsvTable:
    """The rows of a CSV file after its header. Blank lines are kept as raw text of the row that follows."""

    def __init__(self, lines: Lines, reading: Reading, findings: Findings, found: Mapping[str, str]) -> None:
        self._lines = lines
        self._budget: Budget = reading.budget
        self._findings = findings
        self._taken: list[str] = []
        self._taken_length = 0
        self.tail = ""
        csv.field_size_limit(self._budget.row_bytes)
        delimiter, quote, why = _settled(lines, reading, found)
        self._quote = quote
        self._reader = csv.reader(self._feed(), strict=True, **dialect(delimiter, quote))
        columns = self._header()
        lead = lines.mark + self._raw()
        self.layout = Layout(
            format="csv",
            encoding=lines.encoding,
            newline=lines.newline,
            columns=columns,
            delimiter=delimiter,
            lead=lead,
            quote=quote,
            found=why,
        )

    def __iter__(self) -> Iterator[Row]:
        layout, width, newline = self.layout, len(self.layout.columns), self.layout.newline
        delimiter, quote, blank = layout.delimiter, layout.quote or "\0", ""
        while True:
            self._taken.clear()
            self._taken_length = 0
            start = self._lines.number + 1
            try:
                values = next(self._reader, None)
            except csv.Error as error:
                self._findings.add(self._quoting(error, start))
                continue
            if values is None:
                break
            raw = self._taken[0] if len(self._taken) == 1 else self._raw()
            if not values:
                blank = self._lines.keep_blank(blank + raw)
                continue
            try:
                self._check(values, width, raw)
            except RowRefused as bad:
                self._findings.add(RowError(start, bad.column, bad.rule, bad.fix))
                continue
            plain = not blank and quote not in raw and raw == delimiter.join(values) + newline
            if plain or (not blank and raw == render_csv(layout, values)):
                yield Row(start, values)
            else:
                yield Row(start, values, blank + raw)
                blank = ""
        self.tail = blank

    def _feed(self) -> Iterator[str]:
        """Hand lines to the csv reader, remembering those of the present record."""
        limit = self._budget.row_bytes
        for line in self._lines:
            self._taken.append(line)
            self._taken_length += len(line)
            if self._taken_length > limit:
                self._too_long()
            yield line

    def _too_long(self) -> None:
        line = self._lines.number - len(self._taken) + 1
        if len(self._taken) > 1:
            column = self._taken[0].rfind(self._quote) + 1
            raise refuse(
                "quote_open", "Close the quotation mark that is opened here.", line=line, column=column
            )
        fix = f"Keep each row under {self._budget.row_bytes:,} characters."
        raise refuse("row_too_long", fix, line=line, column=1)

    def _raw(self) -> str:
        return "".join(self._taken)

    def _header(self) -> tuple[str, ...]:
        values: list[str] = []
        try:
            while not values:
                self._taken_length = 0
                found = next(self._reader, None)
                if found is None:
                    raise refuse(
                        "empty", "The file has no rows. Its first line must name the columns.", line=1
                    )
                values = found
        except csv.Error as error:
            bad = self._quoting(error, self._lines.number)
            raise refuse(bad.rule, bad.fix, line=bad.line, column=bad.column) from None
        line = self._lines.number
        if len(values) > self._budget.columns:
            fix = f"A table may have {self._budget.columns:,} columns."
            raise refuse("too_many_columns", fix, line=line, column=self._budget.columns + 1)
        seen: set[str] = set()
        for at, name in enumerate(values, start=1):
            check_name(name, at, line, seen)
        return tuple(name.strip() for name in values)

    def _check(self, values: list[str], width: int, raw: str) -> None:
        if "\0" in raw:
            column = next((at for at, value in enumerate(values, start=1) if "\0" in value), 0)
            raise RowRefused(column, "nul", "Remove the NUL characters.")
        if len(values) != width:
            column = min(len(values), width) + 1
            fields = "1 field" if len(values) == 1 else f"{len(values)} fields"
            fix = f"This row has {fields}, the header {width}: add or quote them."
            raise RowRefused(column, "ragged", fix)

    def _quoting(self, error: csv.Error, start: int) -> RowError:
        """Place an error of the csv module; its own message may quote cells, so it is not passed on."""
        words = str(error)
        if "field larger" in words:
            raise refuse("quote_open", "Close the quotation mark opened in this row.", line=start, column=1)
        if "new-line character" in words:
            return RowError(start, 0, "line_end", "Put cells that hold line breaks in quotation marks.")
        if "unexpected end" in words:
            column = self._raw().find(self._quote) + 1
            return RowError(start, column, "quote_open", _left_open(len(self._taken) - 1))
        column = _after_quote(self._raw(), self._reader.dialect.delimiter, self._quote)
        return RowError(start, column, "quote", "Write a quotation mark inside a quoted cell twice.")


def _left_open(lines: int) -> str:
    """What to do about a quote that is open at the end of the file, and how many lines it swallowed."""
    fix = "Close the quotation mark that is opened here"
    if lines < 1:
        return f"{fix}."
    rest = "the line after it was" if lines == 1 else f"the {lines:,} lines after it were"
    return f"{fix}: {rest} taken for a part of this row and left out too."


def _after_quote(text: str, delimiter: str, quote: str) -> int:
    """The position from 1, within its line, of the first character that wrongly follows a closing quotation mark."""
    quoted, fresh, at = False, True, 0
    while at < len(text):
        mark = text[at]
        if quoted and mark == quote:
            following = text[at + 1 : at + 2]
            if following == quote:
                at += 1
            elif following in ("", delimiter, "\r", "\n"):
                quoted = False
            else:
                return at + 2 - (text.rfind("\n", 0, at + 1) + 1)
        elif not quoted:
            quoted = fresh and mark == quote
            fresh = mark in (delimiter, "\r", "\n")
        at += 1
    return 0
