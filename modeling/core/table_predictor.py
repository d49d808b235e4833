"""From a row's cells to an answer: the arithmetic of table models, shared by the engine and the held-out evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modeling.core.predictor import classify_logits, softmax
from modeling.core.table_features import TableFeatures, load_features
from modeling.core.table_rows import value_of
from modeling.core.types import Array, CoreError, Tensors


def table_outputs(tensors: Tensors, features: Array) -> Array:
    """Logits or places [n, K] before any temperature, of features [n, d], by whichever method made the tensors."""
    if "head.weight" in tensors:
        return classify_logits(tensors, {}, features)
    hidden = np.tanh(features @ tensors["network.hidden.weight"].T + tensors["network.hidden.bias"])
    return np.asarray(
        hidden @ tensors["network.out.weight"].T + tensors["network.out.bias"], dtype=np.float32
    )


class TableModel:
    """A finished table model, checked once; raises CoreError `bad_artifact` when its parts do not fit."""

    def __init__(self, tensors: Tensors, config: Mapping[str, Any]) -> None:
        self._tensors = tensors
        self.features = TableFeatures(load_features(config["features"]))
        self.labels = tuple(str(label) for label in config.get("labels", ()))
        self._temperature = float(config.get("temperature", 1.0)) or 1.0
        self._target = load_features([config["target"]])[0] if config.get("target") else None
        self._spread = config.get("spread")
        answers = 1 if self._target else len(self.labels)
        found = table_outputs(tensors, np.zeros((1, self.features.width), dtype=np.float32))
        if found.shape != (1, answers) or not answers:
            raise CoreError("The model's tensors do not fit its columns.", code="bad_artifact")

    @property
    def is_regression(self) -> bool:
        """Whether it answers numbers."""
        return self._target is not None

    def probabilities(self, cells: Mapping[str, Sequence[Any]], rows: int) -> Array:
        """Calibrated class probabilities [rows, K]."""
        return softmax(
            table_outputs(self._tensors, self.features(cells, rows)) / np.float32(self._temperature)
        )

    def values(self, cells: Mapping[str, Sequence[Any]], rows: int) -> list[dict[str, float]]:
        """For each row `value`, and `low` and `high` around it where nine in ten held-out people lay, if released."""
        assert self._target is not None  # callers ask is_regression first
        places = table_outputs(self._tensors, self.features(cells, rows))[:, 0]
        answers = [{"value": value} for value in value_of(places, self._target).tolist()]
        if self._spread is None:
            return answers
        width = 2 * float(self._spread)
        low = value_of(np.clip(places, -1, 1) - width, self._target).tolist()
        high = value_of(np.clip(places, -1, 1) + width, self._target).tolist()
        return [
            {**answer, "low": below, "high": above}
            for answer, below, above in zip(answers, low, high, strict=True)
        ]
