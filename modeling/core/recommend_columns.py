"""The catalogue's public columns inside a recommender, and filters over them: which items a list may show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from modeling.core.types import CoreError, Tensors

CATEGORY, TAGS, NUMBER = "category", "tags", "number"
MOST_COLUMNS = 20
MOST_VALUES = 1_000  # different ones in a column; a column with more is a name, and nobody filters by it
Mask: TypeAlias = npt.NDArray[np.bool_]
Filter = Mapping[str, Any]  # column -> the values that match, or {"min": a, "max": b}


def encode(columns: Mapping[str, Sequence[Any]]) -> tuple[Tensors, dict[str, dict[str, Any]]]:
    """Columns [n] of cells as tensors, and what the config says of each: its kind, tensor and values.

    Cells that are lists make tags, numbers alone make a number, anything else a category; None and "" are missing.
    """
    tensors: Tensors = {}
    written: dict[str, dict[str, Any]] = {}
    for name, cells in columns.items():
        found = _encode_one(cells)
        if found is None or len(written) == MOST_COLUMNS:
            continue
        parts, facts = found
        at = f"columns.{len(written)}"
        tensors |= {f"{at}.{key}": value for key, value in parts.items()}
        written[name] = {**facts, "tensors": at}
    return tensors, written


def _encode_one(cells: Sequence[Any]) -> tuple[Tensors, dict[str, Any]] | None:
    filled = [cell for cell in cells if cell is not None and cell != "" and cell != []]
    if not filled:
        return None
    if all(_number(cell) is not None for cell in filled):
        numbers = [_number(cell) for cell in cells]
        values = np.array([np.nan if value is None else value for value in numbers], dtype=np.float64)
        return {"values": values}, {"kind": NUMBER}
    many = [_words(cell) for cell in cells]
    names = sorted({word for words in many for word in words})
    if len(names) > MOST_VALUES:
        return None
    code = {name: number for number, name in enumerate(names)}
    if not any(isinstance(cell, list) for cell in filled):
        codes = np.array([code[words[0]] if words else -1 for words in many], dtype=np.int32)
        return {"codes": codes}, {"kind": CATEGORY, "values": names}
    offsets = np.cumsum([0, *map(len, many)], dtype=np.int64).astype(np.int32)
    codes = np.array([code[word] for words in many for word in words], dtype=np.int32)
    return {"offsets": offsets, "codes": codes}, {"kind": TAGS, "values": names}


def _number(cell: Any) -> float | None:
    """A finite number, written or real; None for anything else."""
    if isinstance(cell, bool) or not isinstance(cell, int | float | str):
        return None
    try:
        value = float(cell)
    except (ValueError, OverflowError):
        return None
    return value if np.isfinite(value) else None


def _words(cell: Any) -> list[str]:
    """The distinct values of one cell, in order."""
    cells = cell if isinstance(cell, list) else [cell]
    texts = [str(one).strip() for one in cells if one is not None and not isinstance(one, list | dict)]
    return list(dict.fromkeys(text for text in texts if text))


class Columns:
    """The columns of a loaded artefact of n items. One that was trained before columns were kept has none."""

    def __init__(self, tensors: Tensors, config: Mapping[str, Any]) -> None:
        self._items = len(config["items"])
        self._tensors = tensors
        self._written: Mapping[str, Any] = config.get("columns", {})
        self._kept = "columns" in config
        self._codes = {
            name: {value: number for number, value in enumerate(facts["values"])}
            for name, facts in self._written.items()
            if "values" in facts
        }

    def kept(self, wanted: Filter) -> Mask:
        """The items [n] that match every column of a filter; raises CoreError `unknown_column`, `bad_filter`."""
        mask = np.ones(self._items, dtype=bool)
        for name, condition in wanted.items():
            mask &= self._matches(name, condition)
        return mask

    def dropped(self, unwanted: Filter) -> Mask:
        """The items [n] that match any column of a filter; raises CoreError as `kept`."""
        mask = np.zeros(self._items, dtype=bool)
        for name, condition in unwanted.items():
            mask |= self._matches(name, condition)
        return mask

    def _matches(self, name: str, condition: Any) -> Mask:
        facts = self._written.get(name)
        if facts is None:
            raise CoreError(self._no_column(), code="unknown_column")
        if facts["kind"] == NUMBER:
            return _in_range(self._tensors[f"{facts['tensors']}.values"], condition)
        if isinstance(condition, Mapping):
            raise CoreError(
                f"The column {name} has no numbers: it takes a list of values.", code="bad_filter"
            )
        values = self._codes[name]
        is_wanted = np.zeros(len(values) + 1, dtype=bool)  # the last is for items without a value
        is_wanted[[values[value] for value in condition if value in values]] = True
        hits: Mask = is_wanted[self._tensors[f"{facts['tensors']}.codes"]]
        return hits if facts["kind"] == CATEGORY else self._owners_of(facts["tensors"], hits)

    def _owners_of(self, at: str, hits: Mask) -> Mask:
        """The items that have any of the tags that were hit."""
        mask = np.zeros(self._items, dtype=bool)
        tags_of_item = np.diff(self._tensors[f"{at}.offsets"])
        mask[np.repeat(np.arange(self._items), tags_of_item)[hits]] = True
        return mask

    def _no_column(self) -> str:
        if not self._kept:
            return "This model was trained before catalogues' columns were kept. Train it again to filter."
        names = ", ".join(self._written)
        return (
            f"This model's catalogue has the columns {names}."
            if names
            else "This model's catalogue has no columns."
        )


def _in_range(values: npt.NDArray[np.float64], condition: Any) -> Mask:
    """The numbers in {"min", "max"} (both included), or those in a list."""
    if isinstance(condition, Mapping):
        low, high = condition.get("min"), condition.get("max")
        found: Mask = (values >= (-np.inf if low is None else low)) & (
            values <= (np.inf if high is None else high)
        )
        return found
    wanted = [value for one in condition if (value := _number(one)) is not None]
    return np.isin(values, wanted)
