"""Arrow columns to the values that rows have: texts, numbers, lists and nothing, each cell bad or good by itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from typing import Any

import pyarrow as pa
from pyarrow import types

from modeling.core.file_errors import refuse

DIGITS = 18
ITEMS_MOST = 65_536
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_A_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
Cells = Callable[[Any], list[Any]]


@dataclass(frozen=True)
class Bad:
    """A cell that cannot be read: the rule and what to do."""

    rule: str
    fix: str


_NUMBER = Bad("number", "Use finite numbers; leave a cell empty where there is none.")
_ENCODING = Bad("encoding", "Write texts in UTF-8; leave other bytes out.")
_DATE = Bad("date", "Use dates between the years 1 and 9999.")
_ITEMS = Bad("row_too_long", f"Keep lists under {ITEMS_MOST:,} items.")


def element_paths(schema: pa.Schema) -> list[str]:
    """The columns of texts, to be read as dictionaries."""
    return [field.name for field in schema if _is_text(field.type)]


def converter(kind: pa.DataType, at: int, *, is_chat: bool) -> Cells:
    """What turns an array of this type into values; raises FileRefused for what a table has no place for."""
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        item = kind.value_type
        if types.is_struct(item) and is_chat:
            return _lists(_turns(item, at))
        return _lists(_simple(item, at))
    return _simple(kind, at)


def _is_text(kind: pa.DataType) -> bool:
    return bool(types.is_string(kind) or types.is_large_string(kind))


def _simple(kind: pa.DataType, at: int) -> Cells:
    if types.is_dictionary(kind):
        return _dictionary(_simple(kind.value_type, at))
    if _is_text(kind):
        return _texts
    if types.is_string_view(kind):
        return lambda array: list(array.to_pylist())
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return lambda array: [None if one is None else _decoded(one) for one in array.to_pylist()]
    if types.is_boolean(kind) or types.is_null(kind):
        return lambda array: list(array.to_pylist())
    if types.is_integer(kind):
        return lambda array: [_integer(one) for one in array.to_pylist()]
    if types.is_floating(kind):
        return lambda array: [_fraction(one) for one in array.to_pylist()]
    if types.is_decimal(kind):
        return lambda array: [None if one is None else format(one, "f") for one in array.to_pylist()]
    if types.is_date(kind) or types.is_timestamp(kind) or types.is_time(kind):
        return _times(kind)
    fix = "This column is nested, or of a kind that a table has no place for: flatten it into plain columns."
    raise refuse("nested", fix, column=at)


def _texts(array: Any) -> list[Any]:
    """Texts, plain or as a dictionary; bytes that are no UTF-8 spoil their own cell only."""
    if types.is_dictionary(array.type):
        return _dictionary(_texts)(array)
    try:
        return list(array.to_pylist())
    except UnicodeDecodeError:
        raw = array.view(pa.large_binary() if types.is_large_string(array.type) else pa.binary())
        return [None if one is None else _decoded(one) for one in raw.to_pylist()]


def _dictionary(values: Cells) -> Cells:
    """Each different value is made once and shared: a page of one text costs that text, however often it is named."""

    def cells(array: Any) -> list[Any]:
        if not types.is_dictionary(array.type):
            return values(array)
        known = values(array.dictionary)
        return [None if index is None else known[index] for index in array.indices.to_pylist()]

    return cells


def _decoded(value: bytes) -> Any:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return _ENCODING


def _integer(value: int | None) -> Any:
    """Beyond 18 digits as text: the same digits, which JSON's readers would round."""
    return str(value) if value is not None and len(str(abs(value))) > DIGITS else value


def _fraction(value: float | None) -> Any:
    if value is None or math.isnan(value):
        return None
    return value if math.isfinite(value) else _NUMBER


def _times(kind: pa.DataType) -> Cells:
    """Dates and times as ISO texts, without the time zone database: those with a zone in UTC."""
    if types.is_date(kind):
        days = 1 if types.is_date32(kind) else 86_400_000
        return _counted(pa.int32() if types.is_date32(kind) else pa.int64(), lambda n: _day(n // days))
    parts = _A_SECOND[kind.unit]
    if types.is_time(kind):
        width = pa.int32() if types.is_time32(kind) else pa.int64()
        return _counted(width, lambda n: _clock(n * 1_000_000 // parts))
    has_zone = kind.tz is not None
    return _counted(pa.int64(), lambda n: _moment(n * 1_000_000 // parts, has_zone))


def _counted(width: pa.DataType, convert: Callable[[int], str]) -> Cells:
    def one(value: int | None) -> Any:
        try:
            return None if value is None else convert(value)
        except (OverflowError, ValueError):
            return _DATE

    return lambda array: [one(value) for value in array.view(width).to_pylist()]


def _day(days: int) -> str:
    return date.fromordinal(date(1970, 1, 1).toordinal() + days).isoformat()


def _clock(microseconds: int) -> str:
    if not 0 <= microseconds < 86_400_000_000:
        raise ValueError
    return (
        (datetime.combine(date(1970, 1, 1), time()) + timedelta(microseconds=microseconds)).time().isoformat()
    )


def _moment(microseconds: int, has_zone: bool) -> str:
    text = (_EPOCH + timedelta(microseconds=microseconds)).replace(tzinfo=None).isoformat()
    return text + "Z" if has_zone else text


def _lists(items: Cells) -> Cells:
    """Lists of simple items; nothing inside a list stays nothing."""

    def cells(array: Any) -> list[Any]:
        if types.is_fixed_size_list(array.type):
            size = array.type.list_size
            ends = [(array.offset + n) * size for n in range(len(array) + 1)]
        else:
            ends = array.offsets.to_pylist()
        if any(end - start > ITEMS_MOST for start, end in pairwise(ends)):
            raise refuse(_ITEMS.rule, _ITEMS.fix)
        flat = items(array.values.slice(ends[0], ends[-1] - ends[0]))
        spans = zip(pairwise(ends), _there(array), strict=True)
        return [flat[start - ends[0] : end - ends[0]] if there else None for (start, end), there in spans]

    return cells


def _there(array: Any) -> list[bool]:
    """Which items are not null, from the bitmap: Arrow's own function loads a module, and the door is closed."""
    bits = array.buffers()[0]
    if bits is None or not array.null_count:
        return [True] * len(array)
    marks = memoryview(bits)
    return [bool(marks[n >> 3] >> (n & 7) & 1) for n in range(array.offset, array.offset + len(array))]


def _turns(kind: pa.DataType, at: int) -> Cells:
    """The turns of a conversation: their fields, those without a value left out."""
    fields = [(kind.field(n).name, _simple(kind.field(n).type, at)) for n in range(kind.num_fields)]

    def cells(array: Any) -> list[Any]:
        columns = [(name, values(array.field(n))) for n, (name, values) in enumerate(fields)]
        made: list[Any] = []
        for n in range(len(array)):
            turn = {name: values[n] for name, values in columns if values[n] is not None}
            bad = next((one for one in turn.values() if isinstance(one, Bad)), None)
            made.append(bad or turn)
        return made

    return cells
