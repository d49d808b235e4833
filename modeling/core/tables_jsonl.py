"""JSON lines: rows of fields and chat `messages`; NaN, 1e999, duplicate keys, NUL and lone surrogates are refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from modeling.core.file_errors import Findings, RowError, RowRefused, refuse
from modeling.core.tables import Layout, Reading, Row
from modeling.core.text_lines import Lines

ROLES = ("system", "developer", "user", "assistant", "tool")
MESSAGES = "messages"
_DIGITS = 18
_SURROGATE = re.compile("[\ud800-\udfff]")
_TOKEN = re.compile(
    r'"(?:[^"\\]|\\.)*"(?P<key>\s*:)?|(?P<constant>-?Infinity|NaN)|(?P<number>-?\d[\d.eE+-]*)'
)
_STYLES: tuple[tuple[tuple[str, str], bool], ...] = (
    ((", ", ": "), False),
    ((", ", ": "), True),
    ((",", ":"), False),
    ((",", ":"), True),
)


def render_json(layout: Layout, values: list[Any]) -> str:
    """One row as a JSON object on a line, in the file's own spacing."""
    return _dump(dict(zip(layout.columns, values, strict=True)), layout.style) + layout.newline


def _dump(row: dict[str, Any], style: int) -> str:
    separators, ascii_only = _STYLES[style]
    return json.dumps(row, separators=separators, ensure_ascii=ascii_only)


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        name = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _Duplicate(name)
    return made


class _Duplicate(Exception):
    def __init__(self, name: str) -> None:
        super().__init__("duplicate")
        self.name = name


class _BadNumber(Exception):
    """NaN, Infinity, or a number that no machine number holds."""


def _no_constant(text: str) -> float:
    raise _BadNumber(text[:9])


def _integer(text: str) -> int:
    if len(text) > _DIGITS:
        raise _BadNumber("integer")
    return int(text)


def _fraction(text: str) -> float:
    value = float(text) if len(text) < 400 else float("inf")
    if value in (float("inf"), float("-inf")):
        raise _BadNumber("fraction")
    return value


_DECODER = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_constant=_no_constant, parse_int=_integer, parse_float=_fraction
)


def parse_line(text: str) -> dict[str, Any]:
    """One JSON object; raises RowRefused with a column and a rule."""
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        rule = "nul" if "\0" in text else "json"
        raise RowRefused(error.colno, rule, "Write one complete JSON object on each line.") from None
    except _BadNumber:
        fix = (
            "Use finite numbers of at most 18 digits, or write them as strings; JSON has no NaN or Infinity."
        )
        raise RowRefused(_number_column(text), "number", fix) from None
    except _Duplicate as error:
        raise RowRefused(
            _second_key(text, error.name), "duplicate_key", "A key appears twice: remove one."
        ) from None
    except RecursionError:
        raise RowRefused(1, "too_deep", "The object is nested too deeply: flatten it.") from None
    if not isinstance(value, dict):
        raise RowRefused(1, "not_an_object", "Write a JSON object ({…}) on each line.")
    if "\\u" in text or "\0" in text:
        _check_characters(value, text)
    return value


def _check_characters(value: dict[str, Any], text: str) -> None:
    plain = json.dumps(value, ensure_ascii=False)
    if "\\u0000" in plain:
        raise RowRefused(text.find("\\u0000") + 1, "nul", "Remove the NUL characters.")
    if _SURROGATE.search(plain):
        column = max(text.lower().find("\\ud"), 0) + 1
        raise RowRefused(
            column, "surrogate", "Half of a character pair stands alone: write the character in UTF-8."
        )


def _number_column(text: str) -> int:
    for match in _TOKEN.finditer(text):
        number = match.group("number")
        if match.group("constant") or (number and _is_bad(number)):
            return match.start() + 1
    return 1


def _is_bad(number: str) -> bool:
    try:
        (_integer if number.lstrip("-").isdecimal() else _fraction)(number)
    except (_BadNumber, ValueError):
        return True
    return False


def _second_key(text: str, name: str) -> int:
    found = 0
    for match in _TOKEN.finditer(text):
        if match.group("key") and json.loads(match.group()[: match.group().rindex('"') + 1]) == name:
            found += 1
            if found == 2:
                return match.start() + 1
    return 1


def check_messages(messages: Any) -> None:
    """A conversation in OpenAI's form: roles and texts, ending with an assistant's turn; raises RowRefused."""
    if not isinstance(messages, list) or not messages:
        raise RowRefused(0, "messages", "`messages` must be a list of turns, each with a role and a content.")
    for at, turn in enumerate(messages, start=1):
        if not isinstance(turn, dict) or turn.get("role") not in ROLES:
            raise RowRefused(0, "messages_role", f"Turn {at}: the role must be one of {', '.join(ROLES)}.")
        content = turn.get("content")
        if not isinstance(content, str) or not content.strip():
            raise RowRefused(
                0, "messages_content", f"Turn {at}: the content must be a text that is not empty."
            )
    if messages[-1]["role"] != "assistant":
        raise RowRefused(
            0, "messages_end", "The last turn must be the assistant's: it is what the model learns."
        )
    if not any(turn["role"] == "user" for turn in messages):
        raise RowRefused(0, "messages_user", "A conversation needs at least one turn of the user.")


class JsonTable:
    """The rows of a JSONL file; the first good object names the columns."""

    def __init__(self, lines: Lines, reading: Reading, findings: Findings, found: Mapping[str, str]) -> None:
        self._lines = lines
        self._budget = reading.budget
        self._findings = findings
        self.tail = ""
        self._blank = ""
        self._first: Row | None = None
        first = self._find_first()
        columns = tuple(first)
        style = next((at for at in range(len(_STYLES)) if _dump(first, at) == self._text.rstrip("\r\n")), 0)
        self.layout = Layout(
            format="jsonl",
            encoding=lines.encoding,
            newline=lines.newline,
            columns=columns,
            style=style,
            lead=lines.mark,
            found=found,
        )
        self._first = self._row(first, self._text)

    def __iter__(self) -> Iterator[Row]:
        if self._first is not None:
            yield self._first
        for text in self._lines:
            if not text.strip():
                self._blank = self._lines.keep_blank(self._blank + text)
                continue
            row = self._accept(text)
            if row is not None:
                yield row
        self.tail = self._blank

    def _find_first(self) -> dict[str, Any]:
        for text in self._lines:
            self._text = text
            if not text.strip():
                self._blank = self._lines.keep_blank(self._blank + text)
                continue
            value = self._parse(text)
            if value is not None:
                self._check_columns(value)
                return value
        error = (
            self._findings.kept[0]
            if self._findings.kept
            else RowError(1, 1, "empty", "The file has no rows.")
        )
        raise refuse(error.rule, error.fix, line=error.line, column=error.column)

    def _check_columns(self, value: dict[str, Any]) -> None:
        line = self._lines.number
        if not value:
            raise refuse("column_name", "The first object has no fields.", line=line, column=1)
        if len(value) > self._budget.columns:
            raise refuse(
                "too_many_columns", f"A row may have {self._budget.columns:,} fields.", line=line, column=1
            )
        if any(not name.strip() or len(name) > 200 for name in value):
            raise refuse(
                "column_name", "Give every field a name of at most 200 characters.", line=line, column=1
            )

    def _parse(self, text: str) -> dict[str, Any] | None:
        try:
            value = parse_line(text.rstrip("\r\n"))
            if MESSAGES in value:
                check_messages(value[MESSAGES])
        except RowRefused as bad:
            self._findings.add(RowError(self._lines.number, bad.column, bad.rule, bad.fix))
            return None
        return value

    def _accept(self, text: str) -> Row | None:
        value = self._parse(text)
        if value is None:
            return None
        columns = self.layout.columns
        extra = (
            len(value.keys() - set(columns))
            if len(value) > len(columns) or value.keys() != set(columns)
            else 0
        )
        if extra:
            fix = f"This row has {extra} fields that the first row lacks: use the same fields in all rows."
            self._findings.add(RowError(self._lines.number, 0, "ragged", fix))
            return None
        return self._row(value, text)

    def _row(self, value: dict[str, Any], text: str) -> Row:
        values = [value.get(name) for name in self.layout.columns]
        if not self._blank and len(value) == len(values) and text == render_json(self.layout, values):
            return Row(self._lines.number, values)
        raw, self._blank = self._blank + text, ""
        return Row(self._lines.number, values, raw)
