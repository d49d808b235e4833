"""Recommends items with a downloaded model."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from modeling.core.exported.reading import HERE, read_artefact
from modeling.core.recommend_scores import ItemModel, recommend_scores


def recommend(history: list[str], k: int = 10, folder: Path = HERE) -> list[tuple[str, float]]:
    """The k best (item id, score) for somebody who chose these items; nobody's history is in the model."""
    return recommend_scores(ItemModel(*read_artefact(folder)), history=history, k=k)


def main() -> int:
    """python predict.py ITEM ITEM …"""
    for item, score in recommend(sys.argv[1:]):
        print(json.dumps({"item": item, "score": round(score, 4)}))
    return 0
