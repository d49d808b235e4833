"""Columns of a dataset, cell by cell: what is missing, what lies outside its bounds, and what gives the label away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from modeling.core.quality_words import words_of
from modeling.core.table_features import category_of, number_of
from modeling.core.types import Feature

MOST_VALUES = 20_000  # different cells of a column whose labels are counted; a column with more gives no rule
MOST_VALUES_IN_ALL = 500_000  # of all columns together: a thousand columns share them
LABELS_A_VALUE = 4  # different ones on average; a column with more decides nothing
RULE = 0.99  # from this share of the rows on, a column decides the label
ROWS_A_VALUE = 5  # fewer on average, and a column of names would decide everything
_PLACEHOLDERS = frozenset({"na", "n/a", "nan", "null", "none", "nil", "-", "--", "?", "unknown", "missing"})
_STOPPED = frozenset(
    {"a", "an", "and", "are", "as", "at", "be", "by", "for", "from", "in", "is", "it", "its", "no", "not", "of", "on",
     "or", "other", "the", "to", "unspecified", "with"}
)  # fmt: skip


def values_kept(columns: int) -> int:
    """How many different cells of each column are kept with their labels, within bounded memory."""
    return min(MOST_VALUES, MOST_VALUES_IN_ALL // max(1, columns))


def is_missing(cell: Any) -> bool:
    """Whether nothing is in a cell."""
    return cell is None or cell == [] or (isinstance(cell, str) and not cell.strip())


class Column:
    """One column: missing cells, placeholders, cells outside of what was declared, and the labels of its values."""

    def __init__(
        self, name: str, *, declared: Feature | None, can_decide: bool, most_values: int = MOST_VALUES
    ) -> None:
        self.name = name
        self.missing = 0
        self.placeholders = 0
        self.outside = 0
        self.same_as_label = 0
        self._declared = declared
        self._names = frozenset(declared.categories) if declared else frozenset()
        self._labels: dict[Any, Counter[str]] | None = {} if can_decide else None
        self._most_values, self._pairs = most_values, 0

    def add(self, cell: Any, label: str) -> None:
        """Count one cell beside its row's label ("" where it has none)."""
        if is_missing(cell):
            self.missing += 1
        elif isinstance(cell, str) and cell.strip().lower() in _PLACEHOLDERS:
            self.placeholders += 1
        elif self._declared is not None and self._is_outside(cell, self._declared):
            self.outside += 1
        if self._labels is None or not label:
            return
        value = category_of(cell).lower()
        self.same_as_label += value == label.lower()
        labels = self._labels.setdefault(hash(value), Counter())
        self._pairs += label not in labels
        labels[label] += 1
        if len(self._labels) > self._most_values or self._pairs > LABELS_A_VALUE * self._most_values:
            self._labels = None

    def _is_outside(self, cell: Any, declared: Feature) -> bool:
        if declared.kind == "category":
            return category_of(cell) not in self._names
        value = number_of(cell)
        return value is None or not declared.low <= value <= declared.high

    def rule(self, majority: float) -> dict[str, Any] | None:
        """How far this column decides the label: only where it does and the commonest label alone does not."""
        if not self._labels:
            return None
        rows = sum(sum(counts.values()) for counts in self._labels.values())
        right = sum(max(counts.values()) for counts in self._labels.values())
        values = len(self._labels)
        share = right / max(1, rows)
        is_same = self.same_as_label >= RULE * rows
        if not is_same and (values < 2 or rows < ROWS_A_VALUE * values or share < max(RULE, majority + 0.02)):
            return None
        return {"column": self.name, "share": share, "values": values, "is_same": is_same}


class LabelWords:
    """How often a text contains all the words of its own label's name, and how often other classes' texts do."""

    def __init__(self) -> None:
        self._words: dict[str, frozenset[str]] = {}
        self._classes: dict[str, list[str]] = {}
        self._own: Counter[str] = Counter()
        self._other: Counter[str] = Counter()
        self._rows: Counter[str] = Counter()

    def add(self, words: Sequence[str], label: str) -> None:
        """Count one text."""
        if label not in self._words:
            self._words[label] = telling(label)
            for word in self._words[label]:
                self._classes.setdefault(word, []).append(label)
        self._rows[label] += 1
        held = frozenset(words)
        met = {name for word in held & self._classes.keys() for name in self._classes[word]}
        for name in met:
            if self._words[name] <= held:
                (self._own if name == label else self._other)[name] += 1

    def report(self) -> list[dict[str, Any]]:
        """Per class with words to look for: rows, the share that contain its words, the share among all other rows."""
        rows = sum(self._rows.values())
        return [
            {
                "label": label,
                "rows": count,
                "own": self._own[label] / count,
                "other": self._other[label] / max(1, rows - count),
            }
            for label, count in self._rows.most_common()
            if self._words[label]
        ]

    def shares(self) -> tuple[float, float]:
        """Over all rows: the share whose text contains its label's words, and what it were if words fell by chance."""
        rows = max(1, sum(self._rows.values()))
        own = sum(self._own.values()) / rows
        by_chance = sum(
            self._rows[label] * self._other[label] / max(1, rows - self._rows[label]) for label in self._rows
        )
        return own, by_chance / rows


def telling(label: str) -> frozenset[str]:
    """The words of a label's name that say something; none for a bare number or a yes and no."""
    words = {word for word in words_of(label) if word not in _STOPPED and word != "yes"}
    return frozenset(words) if any(not word.isdigit() for word in words) else frozenset()
