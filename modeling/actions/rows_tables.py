"""Rows of a table for the worker: cells by column, answers, and the group of each protected attribute."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any

from modeling.core.table_features import category_of, number_of
from modeling.core.types import Feature, Recipe, TrainingData
from modeling.rows import UnitRow

_BAND = re.compile(r"(\d+)\s*-\s*(\d+)$")
_UNDER = re.compile(r"under\s+(\d+)$")
_OVER = re.compile(r"(\d+)\s*\+$")


def table_data(
    recipe: Recipe, label: str, rows: Iterable[tuple[int, UnitRow]], held_out: list[bool]
) -> TrainingData:
    """`rows` are (unit index, row) in order; a row whose answer is missing or undeclared is left out.

    `held_out` is filled while `rows` are read.
    """
    index = {name: number for number, name in enumerate(recipe.labels)}
    bands = {feature.name: Grouping(feature) for feature in recipe.protected}
    numbers: list[int] = []
    labels: list[int] = []
    targets: list[float] = []
    cells: dict[str, list[Any]] = {feature.name: [] for feature in recipe.features}
    groups: dict[str, list[int]] = {feature.name: [] for feature in recipe.protected}
    for unit, row in rows:
        cell = row.values.get(label, "")
        answer = index.get(str(cell)) if recipe.target is None else number_of(cell)
        if answer is None:
            continue
        numbers.append(unit)
        if recipe.target is None:
            labels.append(int(answer))
        else:
            targets.append(float(answer))
        for name, column in cells.items():
            column.append(row.values.get(name))
        for name, places in groups.items():
            places.append(bands[name](row.values.get(name)))
    return TrainingData(
        units=numbers, held_out=held_out, labels=labels, cells=cells, targets=targets, groups=groups
    )


class Grouping:
    """The group of a cell, −1 where there is none: a category by name, or a number in a band that its name gives."""

    def __init__(self, attribute: Feature) -> None:
        self._names = {name: at for at, name in enumerate(attribute.categories)}
        self._bands = [_bounds(name) for name in attribute.categories]

    def __call__(self, cell: Any) -> int:
        found = self._names.get(category_of(cell))
        if found is not None:
            return found
        value = number_of(cell)
        if value is None:
            return -1
        inside = (at for at, (low, high) in enumerate(self._bands) if low <= value < high)
        return next(inside, -1)


def _bounds(name: str) -> tuple[float, float]:
    """[low, high) of a band such as 25-34, under 25 or 65+; an empty interval for any other name."""
    if found := _BAND.match(name):
        return float(found[1]), float(found[2]) + 1
    if found := _UNDER.match(name):
        return -math.inf, float(found[1])
    if found := _OVER.match(name):
        return float(found[1]), math.inf
    return math.inf, math.inf
