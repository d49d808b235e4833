"""Rows of a table in memory, cut into training and held-out units, with their features, answers and groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from modeling.core.softmax_head import SoftmaxHead
from modeling.core.table_features import TableFeatures
from modeling.core.types import Array, CoreError, Feature, Phase, TrainingData

ROWS_PER_UNIT = 16  # later rows of a unit are left out: a cap on what one person can contribute
WINDOW = 20_000  # rows turned into features at a time
HUBER = 1.0  # a residual is cut at half of the target's declared range


@dataclass(frozen=True)
class TableRows:
    """Features [n, d] of unit norm, answers [n] (class indices, or places in [-1, 1]), units [n] and groups by
    protected attribute ([n], −1 where the attribute is missing)."""

    features: Array
    answers: npt.NDArray[Any]
    units: npt.NDArray[np.int64]
    groups: Mapping[str, npt.NDArray[np.int64]]


def place_of(values: npt.NDArray[np.float64], target: Feature) -> npt.NDArray[np.float64]:
    """Numbers as places in [-1, 1] of the declared bounds; what lies outside is put on the bound."""
    half = target.high / 2 - target.low / 2
    return np.clip((values / 2 - target.low / 2) / half * 2 - 1, -1.0, 1.0)


def value_of(places: npt.NDArray[Any], target: Feature) -> npt.NDArray[np.float64]:
    """The inverse of `place_of`, always inside the bounds."""
    half = target.high / 2 - target.low / 2
    inside = np.clip(np.asarray(places, dtype=np.float64), -1.0, 1.0)
    return np.clip(target.low + half * (inside + 1), target.low, target.high)


def read_rows(
    data: TrainingData, features: TableFeatures, answers: npt.NDArray[Any]
) -> Iterator[Phase | tuple[TableRows, TableRows]]:
    """Phases of work, then (training rows, held-out rows); at most ROWS_PER_UNIT rows a unit, the first ones.

    `answers` has one entry a row. Raises CoreError when the lengths differ.
    """
    total = len(data.units)
    lengths = {len(answers), *map(len, data.cells.values()), *map(len, data.groups.values())}
    if lengths - {total}:
        raise CoreError("Cells, answers and units differ in number.", code="broken_data")
    found = np.empty((total, features.width), dtype=np.float32)
    for start in range(0, total, WINDOW):
        stop = min(start + WINDOW, total)
        cells = {name: column[start:stop] for name, column in data.cells.items()}
        found[start:stop] = features(cells, stop - start)
        yield Phase("features", stop, total, 0.0)
    train, held_out = _sides(data)
    yield _part(data, found, answers, train), _part(data, found, answers, held_out)


def _sides(data: TrainingData) -> tuple[list[int], list[int]]:
    parts: tuple[list[int], list[int]] = ([], [])
    seen: dict[int, int] = {}
    for row, unit in enumerate(data.units):
        seen[unit] = seen.get(unit, 0) + 1
        if seen[unit] <= ROWS_PER_UNIT:
            parts[bool(data.held_out[unit])].append(row)
    return parts


def _part(data: TrainingData, features: Array, answers: npt.NDArray[Any], chosen: list[int]) -> TableRows:
    rows = np.array(chosen, dtype=np.int64)
    return TableRows(
        features=features[rows],
        answers=answers[rows],
        units=np.asarray(data.units, dtype=np.int64)[rows],
        groups={name: np.asarray(group, dtype=np.int64)[rows] for name, group in data.groups.items()},
    )


class HuberHead(SoftmaxHead):
    """A linear regression on places in [-1, 1]: per-unit clipped gradients of Huber's loss.

    A row's gradient is x · (clip(z − t, ±HUBER)), so one strange answer moves no more than any other.
    """

    def _residual(self, logits: Array) -> Array:
        return np.asarray(np.clip(logits - self._y.reshape(-1, 1), -HUBER, HUBER), dtype=np.float32)
