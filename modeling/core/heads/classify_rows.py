"""Rows of a text classification job: split by held-out unit, capped per unit, embedded."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from modeling.core.types import Array, CoreError, Event, Phase, Plan, TrainingData

if TYPE_CHECKING:
    from modeling.core.encoder import Encoder

ROWS_PER_UNIT = 16  # later rows of a unit are left out: a cap on what one person can contribute


@dataclass(frozen=True)
class Rows:
    """Texts with their class index and unit, and their embeddings once computed ([n, d]).

    `labels` is [n], or [n, K] of 0 and 1 where a row has several labels.
    """

    texts: list[str]
    labels: npt.NDArray[np.int64]
    units: npt.NDArray[np.int64]
    features: Array

    def none(self) -> Rows:
        """No rows."""
        return Rows([], self.labels[:0], self.units[:0], self.features[:0])

    def only(self, chosen: npt.NDArray[np.int64]) -> Rows:
        """The chosen rows, without their texts (which nothing needs once there are features)."""
        return Rows([], self.labels[chosen], self.units[chosen], self.features[chosen])


def split_rows(data: TrainingData, *, classes: int = 0) -> tuple[Rows, Rows]:
    """(train, held out), at most ROWS_PER_UNIT rows a unit, first come first kept; raises CoreError for bad lengths.

    `classes` is the number of labels where rows have several (`data.label_sets`), 0 where they have one.
    """
    labels = _label_array(data, classes)
    if not len(data.texts) == len(labels) == len(data.units):
        raise CoreError("Texts, labels and units differ in number.", code="broken_data")
    parts: tuple[list[int], list[int]] = ([], [])
    seen: dict[int, int] = {}
    for row, unit in enumerate(data.units):
        seen[unit] = seen.get(unit, 0) + 1
        if seen[unit] <= ROWS_PER_UNIT:
            parts[bool(data.held_out[unit])].append(row)
    return _rows(data, labels, parts[0]), _rows(data, labels, parts[1])


def _label_array(data: TrainingData, classes: int) -> npt.NDArray[np.int64]:
    """Class indices [n], or 0 and 1 for each label [n, classes]."""
    if not classes:
        return np.array(data.labels, dtype=np.int64)
    labels = np.zeros((len(data.label_sets), classes), dtype=np.int64)
    for row, chosen in enumerate(data.label_sets):
        labels[row, list(chosen)] = 1
    return labels


def _rows(data: TrainingData, labels: npt.NDArray[np.int64], chosen: list[int]) -> Rows:
    return Rows(
        texts=[data.texts[row] for row in chosen],
        labels=labels[chosen],
        units=np.array([data.units[row] for row in chosen], dtype=np.int64),
        features=np.zeros((0, 0), dtype=np.float32),
    )


def embed_rows(encoder: Encoder, train: Rows, held_out: Rows) -> Generator[Event, None, tuple[Rows, Rows]]:
    """Embed both parts, reporting rows done; returns them with their features."""
    texts = train.texts + held_out.texts
    features = np.empty((len(texts), encoder.dimensions), dtype=np.float32)
    started = time.monotonic()
    yield Phase("embedding", 0, len(texts), 0.0)
    for start, part in encoder.embed(texts):
        features[start : start + len(part)] = part
        yield Phase("embedding", start + len(part), len(texts), time.monotonic() - started)
    border = len(train.texts)
    return replace(train, features=features[:border]), replace(held_out, features=features[border:])


def config_of(plan: Plan) -> dict[str, Any]:
    """The artefact's config for a classification plan."""
    return {
        "format": 1,
        "task": plan.recipe.task,
        "base": plan.recipe.base,
        "method": plan.method,
        "labels": list(plan.recipe.labels),
        **({"multi_label": True} if plan.recipe.multi_label else {}),
        "temperature": float(plan.settings.get("temperature", 1.0)),
    }
