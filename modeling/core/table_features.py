"""Rows of a table as numbers: hats and ramps over declared bounds, one-hot over declared categories, unit norm.

Everything comes from what the tenant declared (bounds, categories) and from the row itself: no statistic of private
data, so changing one person's row changes no other person's features.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from modeling.core.types import Array, CannotTrain, Feature

HATS = 6
RAMPS = 6
# Weight of a number's hats and ramps beside a category's one. With HATS and RAMPS chosen on eight public tables
# (churn, attrition, insurance, credit cards, remote work, cell images, doctor visits; n = 480 to 7,000, epsilon 1, 3
# and 8), none of them among those of the bench.
WEIGHT = 0.6
NUMBER, CATEGORY = "number", "category"
MOST_FEATURES = 500
MOST_COLUMNS = 5_000
SMALLEST_NORM = 1e-6
LARGEST_BOUND = 1e30  # errors are told in units of the bounds' difference: it must stay a number


def number_of(cell: Any) -> float | None:
    """The number in a cell, or None when there is none: text may have a decimal comma; infinities are none."""
    if cell is None or isinstance(cell, bool):
        return None if cell is None else float(cell)
    if isinstance(cell, str):
        text = cell.strip()
        if "," in text and "." not in text:
            text = text.replace(",", ".")
        try:
            cell = float(text)
        except ValueError:
            return None
    if not isinstance(cell, int | float):
        return None
    try:
        value = float(cell)
    except OverflowError:
        return None
    return value if math.isfinite(value) else None


def category_of(cell: Any) -> str:
    """A cell as the name of its category, "" when it is missing: true and 3.0 read like their CSV forms."""
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()


def check_features(features: Sequence[Feature]) -> None:
    """Refuse features that cannot be learnt from; raises CannotTrain naming the column."""
    if not features:
        raise CannotTrain("Name at least one column to learn from.", code="features_required")
    names = [feature.name for feature in features]
    if len(set(names)) != len(names):
        raise CannotTrain("A column is named twice among the features.", code="invalid_features")
    for feature in features:
        if feature.kind == NUMBER:
            check_bounds(feature)
        elif len(set(feature.categories)) != len(feature.categories) or not feature.categories:
            raise CannotTrain(
                f"“{feature.name}” needs a list of different categories.", code="invalid_features"
            )
    if len(features) > MOST_FEATURES or TableFeatures(features).width > MOST_COLUMNS:
        raise CannotTrain(
            f"This is too wide: at most {MOST_FEATURES} columns, and {MOST_COLUMNS:,} numbers and categories together.",
            code="too_many_features",
        )


def check_bounds(feature: Feature) -> None:
    """Refuse bounds that are not an interval; raises CannotTrain naming the column."""
    # By halves, as places are worked out: those of two tiny bounds may be equal. NaN fails too.
    if not -LARGEST_BOUND / 2 <= feature.low / 2 < feature.high / 2 <= LARGEST_BOUND / 2:
        raise CannotTrain(
            f"“{feature.name}” needs two bounds, the lower one below the higher one, neither beyond 1e30.",
            code="invalid_features",
        )


def dump_features(features: Sequence[Feature]) -> list[dict[str, Any]]:
    """Declared columns for an artefact's config."""
    return [
        {"name": one.name, "kind": NUMBER, "low": one.low, "high": one.high}
        if one.kind == NUMBER
        else {"name": one.name, "kind": CATEGORY, "categories": list(one.categories)}
        for one in features
    ]


def load_features(data: Sequence[Mapping[str, Any]]) -> tuple[Feature, ...]:
    """The inverse of `dump_features`."""
    return tuple(
        Feature(
            name=str(one["name"]),
            kind=str(one["kind"]),
            low=float(one.get("low", 0.0)),
            high=float(one.get("high", 0.0)),
            categories=tuple(str(name) for name in one.get("categories", ())),
        )
        for one in data
    )


class TableFeatures:
    """The map from cells to features. It is its declaration: two maps of the same declaration are the same map."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self.features = tuple(features)
        self.width = sum(_width(feature) for feature in self.features)

    def __call__(self, cells: Mapping[str, Sequence[Any]], rows: int) -> Array:
        """Unit-norm features [rows, width] of raw cells by column name; an absent column is missing in every row."""
        found = np.zeros((rows, self.width), dtype=np.float32)
        start = 0
        for feature in self.features:
            stop = start + _width(feature)
            column = cells.get(feature.name)
            _fill(found[:, start:stop], feature, [None] * rows if column is None else column)
            start = stop
        # Every feature puts something into every row, so no norm is near zero.
        norms = np.linalg.norm(found, axis=1, keepdims=True)
        return np.asarray(found / np.maximum(norms, SMALLEST_NORM), dtype=np.float32)

    def blocks(self) -> Iterator[tuple[Feature, slice]]:
        """Each feature with its columns."""
        start = 0
        for feature in self.features:
            yield feature, slice(start, start + _width(feature))
            start += _width(feature)


def _width(feature: Feature) -> int:
    """Columns of a feature; the last one says that the cell is missing or of no declared category."""
    return (HATS + RAMPS if feature.kind == NUMBER else len(feature.categories)) + 1


def _fill(block: Array, feature: Feature, column: Sequence[Any]) -> None:
    if feature.kind == NUMBER:
        _fill_numbers(block, feature, column)
        return
    index = {name: at for at, name in enumerate(feature.categories)}
    places = [index.get(category_of(cell), len(index)) for cell in column]
    block[np.arange(len(places)), places] = 1.0


def _fill_numbers(block: Array, feature: Feature, column: Sequence[Any]) -> None:
    values = np.array([_or_nan(number_of(cell)) for cell in column], dtype=np.float64)
    missing = np.isnan(values)
    # Halved first: the difference of two declared bounds may be larger than any float.
    span = feature.high / 2 - feature.low / 2
    place = np.clip((np.where(missing, feature.low, values) / 2 - feature.low / 2) / span, 0.0, 1.0)
    block[:, : HATS + RAMPS] = WEIGHT * _curve(place)
    block[missing] = 0.0
    block[missing, -1] = 1.0


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _curve(place: npt.NDArray[np.float64]) -> Array:
    """Hats around HATS knots and ramps that rise inside one of RAMPS intervals, of places [n] in [0, 1]."""
    knots = np.linspace(0.0, 1.0, HATS)
    hats = np.maximum(0.0, 1.0 - np.abs(place[:, None] - knots) * (HATS - 1))
    ramps = np.clip(place[:, None] * RAMPS - np.arange(RAMPS), 0.0, 1.0) - 0.5
    return np.concatenate([hats, ramps], axis=1).astype(np.float32)
