"""How fast the private text head trains on cached features: examples a second on one core, noise included."""

from __future__ import annotations

import time

import numpy as np

from modeling.core import planning
from modeling.core.heads.classify import fit
from modeling.core.heads.classify_rows import Rows
from modeling.core.noise import NoiseSource
from modeling.core.softmax_head import head_for
from modeling.core.types import Array, Recipe, Shape

ROWS, WIDTH = 17_285, 384
ASKED = 8_000
PASSES = 20


def _rows(classes: int, *, several: bool, rows_per_unit: int) -> tuple[Rows, Array]:
    """Random unit features: their values do not change the work."""
    random = np.random.default_rng(0)
    features = random.normal(size=(ROWS, WIDTH)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    labels = (
        (random.random((ROWS, classes)) < 0.1).astype(np.int64)
        if several
        else random.integers(classes, size=ROWS)
    )
    return Rows([], labels, np.arange(ROWS) // rows_per_unit, features), features[:classes]


def gradient_rate(rows: Rows, names: Array) -> tuple[float, float]:
    """(examples a second of CPU time in clipped gradients with their noise, share of the noise)."""
    head = head_for(rows.features, rows.labels, rows.units, bias=0.15)
    source, weights = NoiseSource(), np.zeros((len(names), WIDTH + 1), dtype=np.float32)
    head.gradient(weights, clip=0.15)
    clipping = noising = 0.0
    for _ in range(PASSES):
        started = time.process_time()
        head.gradient(weights, clip=0.15)
        clipping += time.process_time() - started
        started = time.process_time()
        source.normal(weights.size)
        noising += time.process_time() - started
    return PASSES * ROWS / (clipping + noising), noising / (clipping + noising)


def run_rate(rows: Rows, names: Array, *, several: bool) -> float:
    """Examples a second of CPU time over a whole private run: steps, noise, checkpoints and held-out releases."""
    units = len(np.unique(rows.units))
    labels = tuple(f"class {number}" for number in range(len(names)))
    recipe = Recipe("classification", "minilm-l6", "head", labels=labels, multi_label=several)
    plan = planning.plan(recipe, Shape(units, 400, ROWS + 400, classes=len(labels)))
    held_out = rows.only(np.arange(400))
    started = time.process_time()
    for _ in fit(plan, rows, held_out, names):
        pass
    return plan.steps * ROWS / (time.process_time() - started)


def main() -> None:
    print(f"{ROWS:,} cached rows of width {WIDTH}, one core; an example is one row in one step")
    print(f"{'head':<34} {'gradients/s':>12} {'noise':>6} {'whole run/s':>12}  asked {ASKED:,}")
    for title, classes, several, per_unit in (
        ("21 classes, a row each", 21, False, 1),
        ("21 classes, 4 rows a person", 21, False, 4),
        ("21 labels, several a row", 21, True, 1),
        ("2 classes, a row each", 2, False, 1),
    ):
        rows, names = _rows(classes, several=several, rows_per_unit=per_unit)
        rate, noise = gradient_rate(rows, names)
        print(f"{title:<34} {rate:>12,.0f} {noise:>6.1%} {run_rate(rows, names, several=several):>12,.0f}")


if __name__ == "__main__":
    main()
