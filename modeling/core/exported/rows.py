"""Predicts from rows of a table with a downloaded model."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modeling.core.exported.reading import HERE, read_artefact
from modeling.core.table_predictor import TableModel


def predict_rows(rows: Sequence[Mapping[str, Any]], folder: Path = HERE) -> list[dict[str, Any]]:
    """For each row (column name to cell) its label and probabilities, or the number and its range."""
    model = TableModel(*read_artefact(folder))
    cells = {feature.name: [row.get(feature.name) for row in rows] for feature in model.features.features}
    if model.is_regression:
        return list(model.values(cells, len(rows)))
    found = []
    for shares in model.probabilities(cells, len(rows)):
        named = {label: float(share) for label, share in zip(model.labels, shares, strict=True)}
        found.append({"label": model.labels[int(np.argmax(shares))], "probabilities": named})
    return found


def main() -> int:
    """python predict.py < rows.jsonl: one JSON object a line, column name to cell"""
    rows = [json.loads(line) for line in sys.stdin if line.strip()]
    for answer in predict_rows(rows) if rows else []:
        print(json.dumps(answer, ensure_ascii=False))
    return 0
