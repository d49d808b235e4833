"""Rows of several labels: overlap and exact match of the private head on ICD chapters with seven more labels.

The labels beside the chapter are read off the description's words (side, encounter, sequela, unspecified), so that
rows have 1.6 labels on average; split seeds differ from those that the head's constants were chosen with.
"""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

from modeling.core import bases, evaluation, planning
from modeling.core.encoder import Encoder
from modeling.core.heads.classify import fit
from modeling.core.heads.classify_rows import Rows
from modeling.core.predictor import classify_logits
from modeling.core.types import Array, Recipe, Shape, Trained
from tests.bench import clinic_rows

WORDS = {
    "left side": "left",
    "right side": "right",
    "both sides": "bilateral",
    "unspecified": "unspecified",
    "initial encounter": "initial encounter",
    "subsequent encounter": "subsequent encounter",
    "sequela": "sequela",
}
SEEDS = range(3)


def labelled(rows: clinic_rows.ClinicRows) -> npt.NDArray[np.int64]:
    """0 and 1 for each chapter and each word label, [n, chapters + 7]."""
    labels = np.zeros((len(rows.texts), len(rows.names) + len(WORDS)), dtype=np.int64)
    labels[np.arange(len(rows.texts)), rows.labels] = 1
    for column, word in enumerate(WORDS.values(), start=len(rows.names)):
        labels[:, column] = [word in text.lower() for text in rows.texts]
    return labels


def run(
    parts: tuple[Rows, Rows], names: tuple[str, ...], features: Array, epsilon: float | None
) -> tuple[float, float]:
    """(overlap, exact match) on held-out rows, exact."""
    train, held_out = parts
    reason = "bench" if epsilon is None else ""
    recipe = Recipe(
        "classification",
        "minilm-l6",
        labels=names,
        epsilon=epsilon,
        multi_label=True,
        privacy_off_reason=reason,
    )
    units = len(train.labels)
    plan = planning.plan(recipe, Shape(units, units // 4, units + units // 4, classes=len(names)))
    trained = next(event for event in fit(plan, train, held_out, features) if isinstance(event, Trained))
    logits = classify_logits(trained.tensors, trained.config, held_out.features)
    exact = ((logits >= 0) == (held_out.labels > 0)).all(axis=1)
    return float(evaluation.row_scores(logits, held_out.labels).mean()), float(exact.mean())


def main() -> None:
    rows = clinic_rows.load()
    labels = labelled(rows)
    names = (*rows.names, *WORDS)
    encoder = Encoder(bases.path(clinic_rows.DATA_DIR / "models", "minilm-l6"))
    features = np.concatenate([rows.name_features, encoder.embed_all(list(WORDS))])
    print(f"{len(rows.texts):,} rows, {len(names)} labels, {labels.sum(axis=1).mean():.2f} a row")
    print(f"{'people':>7} {'epsilon':>8} {'overlap':>8} {'exact':>6} {'s/run':>6}")
    for units in (1_500, 5_000, None):
        for epsilon in (1.0, 3.0, 8.0, None):
            started, found = time.process_time(), []
            for seed in SEEDS if units else SEEDS[:1]:
                order = np.random.default_rng(seed).permutation(len(labels))
                border = int(0.8 * len(order))
                chosen = (order[:border][:units], order[border:])
                parts = [Rows([], labels[one], np.arange(len(one)), rows.features[one]) for one in chosen]
                found.append(run((parts[0], parts[1]), names, features, epsilon))
            overlap, exact = np.mean(found, axis=0)
            seconds = (time.process_time() - started) / len(found)
            shown = len(parts[0].labels)
            print(
                f"{shown:>7,} {epsilon or 'none':>8} {overlap:>8.3f} {exact:>6.3f} {seconds:>6.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
