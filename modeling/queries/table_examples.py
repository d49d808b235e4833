"""A table model's columns on pages: the playground's fields, and an example row for a first call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modeling.core.table_features import NUMBER, load_features, number_of
from modeling.core.types import Feature
from modeling.models import ModelVersion


@dataclass(frozen=True)
class Field:
    """One column as a field: a number between its declared bounds, or one of its categories."""

    number: int
    name: str
    is_number: bool
    low: float
    high: float
    categories: tuple[str, ...]
    value: str


def features_of(version: ModelVersion) -> tuple[Feature, ...]:
    """The declared columns of a table model; none for other models."""
    return load_features(version.config.get("features", ()))


def fields_of(features: Sequence[Feature], sent: Mapping[str, str]) -> list[Field]:
    """The playground's fields, filled with what was sent or else with an example."""
    example = example_row(features)
    return [
        Field(
            number,
            one.name,
            one.kind == NUMBER,
            one.low,
            one.high,
            one.categories,
            sent.get(f"cell{number}", str(example[one.name])),
        )
        for number, one in enumerate(features)
    ]


def row_of(fields: Sequence[Field]) -> dict[str, Any]:
    """The cells as typed, numbers as numbers; an empty field is a missing cell."""
    return {field.name: _cell(field) for field in fields}


def _cell(field: Field) -> Any:
    number = number_of(field.value) if field.is_number else None
    if number is None:
        return field.value.strip() or None
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


def example_row(features: Sequence[Feature]) -> dict[str, Any]:
    """A row somewhere inside the declaration: from no data."""
    return {one.name: _between(one) if one.kind == NUMBER else one.categories[0] for one in features}


def _between(feature: Feature) -> float | int:
    # Each bound by itself: the difference of two declared bounds may be larger than any float.
    value = 0.6 * feature.low + 0.4 * feature.high
    return round(value) if feature.high / 2 - feature.low / 2 >= 5 else round(value, 2)
