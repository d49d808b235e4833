"""A small catalogue and synthetic people whose taste follows its text, and plans for as many as asked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from modeling.core import planning
from modeling.core.types import Array, Plan, Recipe, Shape, TrainingData

ITEMS, WIDTH = 60, 8
RECIPE = Recipe(task="recommendation", base="minilm-l6", epsilon=8.0)


def embeddings(seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((ITEMS, WIDTH)).astype(np.float32)


def people(count: int, seed: int = 1) -> list[list[int]]:
    """Each likes the items on one side of a random direction of the text's space; item 0 is everybody's."""
    source, places = np.random.default_rng(seed), embeddings()
    found = []
    for _ in range(count):
        wanted = places @ source.standard_normal(WIDTH) + source.gumbel(size=ITEMS)
        found.append([0, *np.argsort(-wanted)[: source.integers(3, 9)].tolist()])
    return found


def plan_for(units: int, *, held_out: int = 100, epsilon: float | None = 8.0, method: str = "auto") -> Plan:
    reason = "a test" if epsilon is None else ""
    recipe = replace(RECIPE, epsilon=epsilon, method=method, privacy_off_reason=reason)
    return planning.plan(recipe, Shape(units, held_out, rows=units * 5, items=ITEMS))


def data_of(count: int = 4_000) -> TrainingData:
    """Every eighth person held out."""
    histories = people(count)
    held_out = [index % 8 == 0 for index in range(len(histories))]
    catalogue = [(f"item-{number}", f"text {number}") for number in range(ITEMS)]
    return TrainingData(range(len(histories)), held_out, histories=histories, catalogue=catalogue)
