"""Held-out accuracy of the text head on the clinic demo rows: `python -m tests.bench.clinic_accuracy [method]`.

Exact scores on held-out rows (the demo rows are public), mean over five splits, with macro-F1, the majority share
and the same code without privacy beside them.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from modeling.core import planning
from modeling.core.heads.classify import fit
from modeling.core.heads.classify_rows import Rows
from modeling.core.predictor import classify_logits, classify_probabilities
from modeling.core.types import Recipe, Shape, Trained
from tests.bench.clinic_rows import ClinicRows, load

SPLITS = 5
ASKED = {8.0: 0.88, 3.0: 0.855, 1.0: 0.81}
BINS = 15


def splits(rows: ClinicRows, units: int | None = None) -> Iterator[tuple[Rows, Rows]]:
    """(train, held out) 80/20 by seed; `units` keeps that many training rows."""
    for seed in range(SPLITS):
        order = np.random.default_rng(seed).permutation(len(rows.texts))
        border = int(0.8 * len(order))
        yield _part(rows, order[:border][:units]), _part(rows, order[border:])


def _part(rows: ClinicRows, chosen: npt.NDArray[np.int64]) -> Rows:
    texts = [rows.texts[row] for row in chosen]
    return Rows(texts, rows.labels[chosen], np.arange(len(chosen)), rows.features[chosen])


def train(rows: ClinicRows, part: Rows, held_out: Rows, epsilon: float | None) -> Trained:
    """One run of the head on a split."""
    recipe = Recipe(
        "classification",
        "minilm-l6",
        "head",
        labels=tuple(rows.names),
        epsilon=epsilon,
        privacy_off_reason="bench" if epsilon is None else "",
    )
    shape = Shape(len(part.texts), len(held_out.texts), len(rows.texts), classes=len(rows.names))
    events = fit(planning.plan(recipe, shape), part, held_out, rows.name_features)
    return next(event for event in events if isinstance(event, Trained))


def scores(trained: Trained, held_out: Rows) -> dict[str, float]:
    """Exact accuracy, macro-F1, expected calibration error and mean confidence on held-out rows."""
    predicted = classify_logits(trained.tensors, trained.config, held_out.features).argmax(axis=1)
    sure = classify_probabilities(trained.tensors, trained.config, held_out.features).max(axis=1)
    right = predicted == held_out.labels
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    gaps = [
        abs(float((right[bins == b].mean() - sure[bins == b].mean()) * (bins == b).mean())) for b in set(bins)
    ]
    parts = []
    for label in np.unique(held_out.labels):
        hit = float((right & (held_out.labels == label)).sum())
        parts.append(2 * hit / ((predicted == label).sum() + (held_out.labels == label).sum()))
    return {
        "accuracy": float(right.mean()),
        "f1": float(np.mean(parts)),
        "error": sum(gaps),
        "sure": float(sure.mean()),
    }


def main(units: int | None) -> None:
    rows = load()
    majority = np.bincount(rows.labels).max() / len(rows.labels)
    print(
        f"{len(rows.texts):,} rows, {len(rows.names)} classes, majority share {majority:.3f}, {SPLITS} splits"
    )
    for epsilon in (8.0, 3.0, 1.0, None):
        started = time.process_time()
        found = []
        for part, held_out in splits(rows, units):
            found.append(scores(train(rows, part, held_out, epsilon), held_out))
        mean = {name: statistics.mean(row[name] for row in found) for name in found[0]}
        spread = statistics.stdev(row["accuracy"] for row in found)
        asked = f"asked {ASKED[epsilon]:.3f}" if epsilon in ASKED and units is None else ""
        print(
            f"epsilon {epsilon or 'none':>4}: accuracy {mean['accuracy']:.4f} ± {spread:.4f} {asked}  macro-F1 "
            f"{mean['f1']:.3f}  calibration error {mean['error']:.3f} (confidence {mean['sure']:.3f})  "
            f"{(time.process_time() - started) / SPLITS:.1f} s a run"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else None)
