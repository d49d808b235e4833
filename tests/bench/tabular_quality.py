"""AUROC of private table models on six public tables, against gradient boosting without privacy and private DP-EBM:

`python -m tests.bench.tabular_quality [seeds]`. Exact scores on held-out rows (the tables are public), means over
splits. The product refuses to train where people are too few to be worth it (Pima and breast_cancer at epsilon 1): the
bench trains there too. Constants were chosen on other tables (core/heads/tabular.py), none on these.
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modeling.core.accounting import delta_for
from modeling.core.heads.tabular import AdditiveHead
from modeling.core.table_features import TableFeatures, category_of
from modeling.core.table_predictor import table_outputs
from modeling.core.types import Recipe, Shape, Trained
from tests.bench.tables import Table, load_tables

SEEDS = 3
SMALL, MORE = 1_000, 5  # tables of fewer rows get so many times the splits
EPSILONS = (1.0, 3.0, 8.0)
ASKED = {1.0: 0.975, 3.0: 0.99, 8.0: 0.995}  # mean ratio to the best gradient boosting
NOT_UNDER = 0.01  # of AUROC, below DP-EBM, on any table at any epsilon
T2 = {  # of the privacy notes, measured once on other splits
    "credit_data": (0.823, 0.838, 0.846),
    "HMDA": (0.788, 0.810, 0.821),
    "Default": (0.950, 0.949, 0.948),
    "lending_club": (0.739, 0.743, 0.742),
    "breast_cancer": (0.985, 0.989, 0.990),
    "Pima": (0.820, 0.841, 0.851),
}
Rows = npt.NDArray[np.int64]


def auroc(scores: npt.NDArray[Any], labels: npt.NDArray[np.int64]) -> float:
    """Area under the ROC curve."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, scores))


def ours(table: Table, train: Rows, held_out: Rows, *, epsilon: float | None) -> float:
    """Our additive model on the training rows."""
    head = AdditiveHead()
    recipe = Recipe(
        "classification",
        "tabular",
        labels=("no", "yes"),
        epsilon=epsilon,
        privacy_off_reason="" if epsilon else "bench",
        features=table.features,
    )
    plan = head.numbers(recipe, Shape(len(train), len(held_out), len(table.labels), classes=2), "cpu")
    events = head.train(plan, table.data(train), models_dir=Path(), resume=None, spent={})
    trained = next(event for event in events if isinstance(event, Trained))
    features = TableFeatures(table.features)(table.part(held_out), len(held_out))
    logits = table_outputs(trained.tensors, features)
    return auroc(logits[:, 1] - logits[:, 0], table.labels[held_out])


def _matrix(table: Table) -> npt.NDArray[np.float64]:
    """Numbers as they are and categories by index, for trees."""
    columns = []
    for feature in table.features:
        cells = table.cells[feature.name]
        if feature.kind == "number":
            columns.append([np.nan if cell is None else float(cell) for cell in cells])
        else:
            index = {name: at for at, name in enumerate(feature.categories)}
            columns.append([float(index.get(category_of(cell), len(index))) for cell in cells])
    return np.array(columns).T


def boosted(table: Table, train: Rows, held_out: Rows) -> dict[str, float]:
    """Gradient boosting without privacy: both libraries, with their defaults and with settings for small tables."""
    from lightgbm import LGBMClassifier
    from sklearn.ensemble import HistGradientBoostingClassifier

    x, y = _matrix(table), table.labels
    categories = [at for at, feature in enumerate(table.features) if feature.kind == "category"]
    small = {"learning_rate": 0.05, "min_samples_leaf": 20, "max_leaf_nodes": 8, "l2_regularization": 1.0}
    models: dict[str, Any] = {
        "sklearn": HistGradientBoostingClassifier(categorical_features=categories or None, random_state=0),
        "sklearn, small": HistGradientBoostingClassifier(
            categorical_features=categories or None, max_iter=150, random_state=0, **small
        ),
        "lightgbm": LGBMClassifier(verbose=-1, n_jobs=1, random_state=0),
        "lightgbm, small": LGBMClassifier(
            verbose=-1, n_jobs=1, random_state=0, n_estimators=150, learning_rate=0.05, num_leaves=8, reg_lambda=1.0
        ),
    }  # fmt: skip
    found = {}
    for name, model in models.items():
        fitting = {"categorical_feature": categories} if name.startswith("lightgbm") and categories else {}
        model.fit(x[train], y[train], **fitting)
        found[name] = auroc(model.predict_proba(x[held_out])[:, 1], y[held_out])
    return found


def dp_ebm(table: Table, train: Rows, held_out: Rows, *, epsilon: float) -> float:
    """DP-EBM of interpret-core with its defaults, the same declared bounds and the same delta."""
    from interpret.privacy import DPExplainableBoostingClassifier

    columns: list[list[Any]] = []
    bounds: dict[int, tuple[float, float]] = {}
    for at, feature in enumerate(table.features):
        cells = table.cells[feature.name]
        if feature.kind == "number":
            bounds[at] = (feature.low, feature.high)
            middle = (feature.low + feature.high) / 2  # it knows no missing number
            columns.append([middle if cell is None else float(np.clip(cell, *bounds[at])) for cell in cells])
        else:
            columns.append([category_of(cell) or "missing" for cell in cells])
    rows = np.array(columns, dtype=object).T
    model = DPExplainableBoostingClassifier(
        feature_types=["continuous" if one.kind == "number" else "nominal" for one in table.features],
        epsilon=epsilon,
        delta=delta_for(len(train)),
        privacy_bounds=bounds,
        random_state=None,
        n_jobs=1,
    )
    model.fit(rows[train], table.labels[train])
    return auroc(model.predict_proba(rows[held_out])[:, 1], table.labels[held_out])


def mean_over(table: Table, seeds: int, score: Callable[[Rows, Rows], float]) -> float:
    """The mean of a score over splits."""
    return statistics.mean(score(train, held_out) for _seed, train, held_out in table.splits(seeds))


def splits_of(table: Table, seeds: int) -> int:
    """More splits where few held-out rows make each of them uncertain."""
    return seeds if len(table.labels) > SMALL else MORE * seeds


def best_boosting(table: Table, seeds: int) -> tuple[str, float]:
    """The best of them on this table, by its mean over splits: chosen in its favour, on the rows it is scored on."""
    found = [boosted(table, train, held_out) for _seed, train, held_out in table.splits(seeds)]
    means = {name: statistics.mean(one[name] for one in found) for name in found[0]}
    name = max(means, key=lambda one: means[one])
    return name, means[name]


def main(seeds: int) -> None:
    """Print a line per table, then the asked figures."""
    warnings.filterwarnings("ignore")
    started = time.process_time()
    ratios: dict[float, list[float]] = {epsilon: [] for epsilon in EPSILONS}
    under: list[float] = []
    print(f"{'AUROC, ' + str(seeds) + ' splits':<16}{'n':>6}  {'epsilon 1':>9}{'3':>7}{'8':>7}{'none':>7}  "
          f"{'boosting':>8}  {'DP-EBM 1':>8}{'3':>7}{'8':>7}  {'T2 1':>6}{'3':>7}{'8':>7}")  # fmt: skip
    for table in load_tables():
        splits = splits_of(table, seeds)
        _, best = best_boosting(table, splits)
        line = f"{table.name:<16}{int(0.8 * len(table.labels)):>6}  "
        found = {
            epsilon: mean_over(table, splits, lambda a, b, e=epsilon, t=table: ours(t, a, b, epsilon=e))  # type: ignore[misc]
            for epsilon in (*EPSILONS, None)
        }
        rivals = {
            epsilon: mean_over(table, splits, lambda a, b, e=epsilon, t=table: dp_ebm(t, a, b, epsilon=e))  # type: ignore[misc]
            for epsilon in EPSILONS
        }
        for epsilon in EPSILONS:
            ratios[epsilon].append(found[epsilon] / best)
            under.append(rivals[epsilon] - found[epsilon])
        line += f"{found[1.0]:>9.3f}{found[3.0]:>7.3f}{found[8.0]:>7.3f}{found[None]:>7.3f}  {best:>8.3f}  "
        line += f"{rivals[1.0]:>8.3f}{rivals[3.0]:>7.3f}{rivals[8.0]:>7.3f}  "
        line += f"{T2[table.name][0]:>6.3f}{T2[table.name][1]:>7.3f}{T2[table.name][2]:>7.3f}"
        print(line, flush=True)
    for epsilon in EPSILONS:
        mean = statistics.mean(ratios[epsilon])
        print(f"mean ratio to boosting, epsilon {epsilon:g}: {mean:.4f}  asked at least {ASKED[epsilon]}")
    print(f"most under DP-EBM, any table and epsilon: {max(under):+.4f}  asked at most {NOT_UNDER}")
    print(f"CPU seconds: {time.process_time() - started:.0f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else SEEDS)
