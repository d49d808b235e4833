"""Held-out accuracy of the text head on the clinic demo rows, all of them and few, and how true its confidences are.

Exact scores on held-out rows (the demo rows are public), mean over splits. The confidences are those of the fitted
temperature, which a split's own held-out people paid for; the error of the public formula's stands beside it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from modeling.core import planning
from modeling.core.heads.classify import fit
from modeling.core.heads.classify_rows import Rows
from modeling.core.predictor import classify_logits, classify_probabilities
from modeling.core.types import Plan, Recipe, Shape, Trained
from tests.bench.clinic_rows import ClinicRows, load

SPLITS = 5
OPEN_SPLITS = 3
ASKED = {
    (None, 8.0): 0.885, (None, 3.0): 0.863, (None, 1.0): 0.823,
    (500, 3.0): 0.59, (1_000, 3.0): 0.655, (2_000, 3.0): 0.725,
}  # fmt: skip
STRETCH = {(None, 8.0): 0.89, (None, 3.0): 0.87, (None, 1.0): 0.835}
BINS = 15


def splits(rows: ClinicRows, units: int | None = None, *, count: int = SPLITS) -> Iterator[tuple[Rows, Rows]]:
    """(train, held out) 80/20 by seed; `units` keeps that many training rows."""
    for seed in range(count):
        order = np.random.default_rng(seed).permutation(len(rows.texts))
        border = int(0.8 * len(order))
        yield _part(rows, order[:border][:units]), _part(rows, order[border:])


def _part(rows: ClinicRows, chosen: npt.NDArray[np.int64]) -> Rows:
    texts = [rows.texts[row] for row in chosen]
    return Rows(texts, rows.labels[chosen], np.arange(len(chosen)), rows.features[chosen])


def train(rows: ClinicRows, part: Rows, held_out: Rows, epsilon: float | None) -> tuple[Plan, Trained]:
    """One run of the head on a split. As many people are held out as a real job of this size would hold out."""
    reason = "bench" if epsilon is None else ""
    recipe = Recipe(
        "classification",
        "minilm-l6",
        "head",
        labels=tuple(rows.names),
        epsilon=epsilon,
        privacy_off_reason=reason,
    )
    kept = held_out.only(np.arange(min(len(held_out.texts), len(part.texts) // 4)))
    shape = Shape(len(part.texts), len(kept.labels), len(rows.texts), classes=len(rows.names))
    plan = planning.plan(recipe, shape)
    events = fit(plan, part, kept, rows.name_features)
    return plan, next(event for event in events if isinstance(event, Trained))


def scores(plan: Plan, trained: Trained, held_out: Rows) -> dict[str, float]:
    """Exact accuracy, macro-F1, and calibration error by the fitted and by the formula's temperature."""
    predicted = classify_logits(trained.tensors, trained.config, held_out.features).argmax(axis=1)
    right = predicted == held_out.labels
    parts = []
    for label in np.unique(held_out.labels):
        hit = float((right & (held_out.labels == label)).sum())
        parts.append(2 * hit / ((predicted == label).sum() + (held_out.labels == label).sum()))
    sure = classify_probabilities(trained.tensors, trained.config, held_out.features).max(axis=1)
    found = {
        "accuracy": float(right.mean()),
        "f1": float(np.mean(parts)),
        "error": _calibration_error(trained, trained.config["temperature"], held_out, right),
        "error by formula": _calibration_error(trained, float(plan.settings["temperature"]), held_out, right),
    }
    below = trained.config.get("abstain_below")
    if below is not None:
        answered = sure >= below
        report = trained.report["calibration"]
        found |= {
            "answered": float(answered.mean()),
            "right of those": float(right[answered].mean()),
            "promised answered": report["answered"],
            "promised right": report["accuracy_answered"],
        }
    return found


def _calibration_error(
    trained: Trained, temperature: float, held_out: Rows, right: npt.NDArray[np.bool_]
) -> float:
    config = trained.config | {"temperature": temperature}
    sure = classify_probabilities(trained.tensors, config, held_out.features).max(axis=1)
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    gaps = [abs(float((right[bins == b] - sure[bins == b]).mean() * (bins == b).mean())) for b in set(bins)]
    return sum(gaps)


def report(rows: ClinicRows, units: int | None, epsilon: float | None) -> None:
    """One line of the table."""
    count = SPLITS if epsilon is not None else OPEN_SPLITS
    started, found = time.process_time(), []
    for part, held_out in splits(rows, units, count=count):
        plan, trained = train(rows, part, held_out, epsilon)
        found.append(scores(plan, trained, held_out))
    seconds = (time.process_time() - started) / count
    mean = {
        name: statistics.mean(row[name] for row in found if name in row)
        for name in dict.fromkeys(name for row in found for name in row)
    }
    spread = statistics.stdev(row["accuracy"] for row in found)
    asked = f"{ASKED[units, epsilon]:.3f}" if epsilon and (units, epsilon) in ASKED else ""
    stretch = f"{STRETCH[units, epsilon]:.3f}" if epsilon and (units, epsilon) in STRETCH else ""
    abstaining = ""
    if "answered" in mean:
        abstaining = (
            f"{mean['answered']:.2f} ({mean['promised answered']:.2f}) right "
            f"{mean['right of those']:.3f} ({mean['promised right']:.3f})"
        )
    print(
        f"{units or len(rows.texts) * 4 // 5:>7,} {epsilon or 'none':>8} {mean['accuracy']:>9.4f} ±{spread:.4f} "
        f"{asked:>6} {stretch:>8} {mean['f1']:>9.3f} {mean['error']:>12.3f} {mean['error by formula']:>8.3f}  "
        f"{abstaining:<34} {seconds:>5.1f}",
        flush=True,
    )


def main() -> None:
    rows = load()
    majority = np.bincount(rows.labels).max() / len(rows.labels)
    print(f"{len(rows.texts):,} rows, {len(rows.names)} classes, majority share {majority:.3f}")
    print(
        f"{'people':>7} {'epsilon':>8} {'accuracy':>9} {'':>7} {'asked':>6} {'stretch':>8} {'macro-F1':>9} "
        f"{'calib. error':>12} {'formula':>8}  {'answered (promised)':<34} {'s/run':>5}"
    )
    for epsilon in (8.0, 3.0, 1.0, None):
        report(rows, None, epsilon)
    for units in (500, 1_000, 2_000):
        report(rows, units, 3.0)
    for units in (500, 1_000, 2_000):
        report(rows, units, None)


if __name__ == "__main__":
    main()
