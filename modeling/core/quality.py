"""The quality of a dataset, measured in one pass and bounded memory: counts, copies, lengths, leaks, overlaps.

Nothing of it is private in the sense of epsilon: it is for those who may read the rows, and no training uses it.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from modeling.core import quality_copies as copies
from modeling.core.quality_cells import Column, LabelWords, values_kept
from modeling.core.quality_numbers import bars, histogram, spread, steps
from modeling.core.quality_words import Sketches, sketch, words_of
from modeling.core.table_features import number_of
from modeling.core.types import Feature

FORMAT = 1
MOST_ROWS = 2_000_000  # looked at; the report says when a dataset has more
MOST_TEXTS = 200_000  # searched for near-duplicates
MOST_CLASSES, MOST_ITEMS = 1_000, 200_000
CLASSES_SHOWN = 60
ENCODER_TOKENS = 256
NAME_CHARACTERS = 200  # of a class; longer cells are texts, and many of them would not fit in memory
_AT_ONCE, _WORDS_AT_ONCE = 4_096, 500_000
_LONG_AT_ONCE = 256
_MOST_COUNTED = 50_000
_CHARACTERS_COUNTED = 20_000  # of a text whose tokens are counted
_WORDS_TO_TOKENS = 1.4
ROWS_SHARE = 80  # percent of the work done when all rows were read


@dataclass(frozen=True, slots=True)
class Seen:
    """One row: whose it is (units are numbered as they come), on which side, its line, its cells by column."""

    unit: int
    held_out: bool
    line: int
    cells: Mapping[str, Any]


@dataclass(frozen=True)
class Looking:
    """What to look for: the columns and what they are; `tokens` counts an encoder's tokens of each text."""

    columns: Sequence[str]
    texts: Sequence[str] = ()
    label: str = ""
    item: str = ""
    is_number: bool = False  # the label is a number to predict, not a class
    named: Sequence[str] = ()  # units, users, times: never asked whether they decide the label
    declared: Mapping[str, Feature] = field(default_factory=dict)
    rows: int = 0
    tokens: Callable[[Sequence[str]], Sequence[int]] | None = None


def measure(looking: Looking, rows: Iterable[Seen]) -> Iterator[int | dict[str, Any]]:
    """Percents as the work goes on, then the report as a dictionary of plain numbers and texts."""
    found = _Measuring(looking)
    total = max(1, min(looking.rows, MOST_ROWS))
    for number, row in enumerate(rows, start=1):
        if number > MOST_ROWS:
            found.is_cut = True
            break
        found.add(row)
        if number % _AT_ONCE == 0:
            yield min(ROWS_SHARE, ROWS_SHARE * number // total)
    yield ROWS_SHARE
    near = found.near()
    yield 95
    yield found.report(near)


class _Measuring:
    """What is kept of the rows: some fifty bytes each, and the sketches of the first 200,000 texts."""

    def __init__(self, looking: Looking) -> None:
        self.looking = looking
        self.is_cut = False
        unasked = {looking.label, *looking.texts, *looking.named}
        most_values = values_kept(len(looking.columns))
        self.columns = [
            Column(
                name,
                declared=looking.declared.get(name),
                can_decide=bool(looking.label) and not looking.is_number and name not in unasked,
                most_values=most_values,
            )
            for name in looking.columns
        ]
        self.lines, self.units, self.digests = array("q"), array("q"), array("q")
        self.texts, self.characters, self.words = array("q"), array("q"), array("q")
        self.sides = bytearray()
        self.labels = array("q")
        self.classes: Counter[str] = Counter()
        self._most = MOST_ITEMS if looking.item else MOST_CLASSES
        self._numbers: dict[int, int] = {}  # by hash: the names themselves may be long
        self.targets = array("d")
        self.label_words = LabelWords()
        self.tokens = _TooLong(looking.tokens)
        self._waiting: list[list[str]] = []
        self._waiting_words = 0
        self._sketches: list[Sketches] = []

    def add(self, row: Seen) -> None:
        """Count one row."""
        cells = row.cells
        label = _name(cells.get(self.looking.label)) if self.looking.label else ""
        for column in self.columns:
            column.add(cells.get(column.name), label)
        self.lines.append(row.line)
        self.units.append(row.unit)
        self.sides.append(row.held_out)
        self.digests.append(hash(tuple(_hashable(cells.get(name)) for name in self.looking.columns)))
        self._class(cells)
        if self.looking.texts:
            self._text(
                " ".join(filter(None, (_words(cells.get(name)) for name in self.looking.texts))), label
            )

    def _class(self, cells: Mapping[str, Any]) -> None:
        """Count the row's classes; a list holds several. Of a number to predict, keep it."""
        if self.looking.is_number:
            value = number_of(cells.get(self.looking.label))
            if value is not None:
                self.targets.append(value)
            return
        cell = (
            cells.get(self.looking.label or self.looking.item)
            if self.looking.label or self.looking.item
            else None
        )
        names = [_name(one) for one in cell] if isinstance(cell, list) else [_name(cell)]
        for name in names:
            if name and (name in self.classes or len(self.classes) < self._most):
                self.classes[name] += 1
        self.labels.append(self._numbers.setdefault(hash("\x1f".join(names)), len(self._numbers)))

    def _text(self, text: str, label: str) -> None:
        words = words_of(text)
        self.characters.append(len(text))
        self.words.append(len(words))
        self.texts.append(hash(" ".join(words)))
        self.tokens.add(text, len(words))
        if label and label in self.classes:
            self.label_words.add(words, label)
        if len(self.texts) <= MOST_TEXTS:
            self._waiting.append(words)
            self._waiting_words += len(words)
            if len(self._waiting) == _AT_ONCE or self._waiting_words >= _WORDS_AT_ONCE:
                self._sketch()

    def _sketch(self) -> None:
        self._sketches.append(sketch(self._waiting))
        self._waiting, self._waiting_words = [], 0

    def near(self) -> tuple[copies.Groups, copies.Near] | None:
        """Equal texts, and pairs of different ones that are much alike; None without a text."""
        if not self.looking.texts:
            return None
        if self._waiting:
            self._sketch()
        self.tokens.finish()
        groups = copies.grouped(_ints(self.texts)[:MOST_TEXTS])
        parts, self._sketches = self._sketches, []
        joined = Sketches.joined(parts)
        parts.clear()  # a hundred megabytes each: two of them at a time are enough
        sketches = _chosen(joined, groups.firsts)
        del joined
        return groups, copies.near_pairs(sketches)

    def report(self, near: tuple[copies.Groups, copies.Near] | None) -> dict[str, Any]:
        """All numbers."""
        rows = copies.grouped(_ints(self.digests))
        a_unit = np.bincount(_ints(self.units)) if len(self.units) else np.zeros(0, dtype=np.int64)
        most = max(self.classes.values(), default=0) / max(1, sum(self.classes.values()))
        return {
            "format": FORMAT,
            "rows": len(self.lines),
            "is_cut": self.is_cut,
            "units": len(a_unit),
            "rows_per_unit": {**spread(a_unit), "histogram": steps(a_unit)},
            "classes": self._balance(),
            "target": bars(np.array(self.targets), self.looking.declared.get(self.looking.label)),
            "copies": {
                "rows": rows.repeated,
                "share": rows.repeated / max(1, len(self.lines)),
                "pairs": rows.pairs(_ints(self.lines)),
            },
            "columns": [
                {"name": one.name, "missing": one.missing, "placeholders": one.placeholders, "outside": one.outside,
                 "is_declared": one.name in self.looking.declared}
                for one in self.columns
            ],
            "rules": [rule for one in self.columns if (rule := one.rule(most))] if not self.looking.item else [],
            "text": self._lengths() if self.looking.texts else None,
            "near": self._near(*near) if near else None,
            "leak": self._leak() if self.looking.texts and self.classes and self.looking.label else None,
        }  # fmt: skip

    def _balance(self) -> dict[str, Any] | None:
        if not self.classes:
            return None
        shown = self.classes.most_common(CLASSES_SHOWN)
        total = sum(self.classes.values())
        return {
            "of": "items" if self.looking.item and not self.looking.label else "labels",
            "count": len(self.classes),
            "rows": total,
            "shown": [{"name": name, "rows": rows} for name, rows in shown],
            "smallest": min(self.classes.values()),
            "largest": max(self.classes.values()),
            "tenth": sum(sorted(self.classes.values(), reverse=True)[: max(1, len(self.classes) // 10)])
            / total,
        }

    def _lengths(self) -> dict[str, Any]:
        words, characters = _ints(self.words), _ints(self.characters)
        return {
            "words": {**spread(words), "histogram": histogram(words)},
            "characters": {**spread(characters), "histogram": histogram(characters)},
            "empty": int((words == 0).sum()),
            "too_long": self.tokens.count,
            "encoder_tokens": ENCODER_TOKENS,
        }

    def _near(self, groups: copies.Groups, near: copies.Near) -> dict[str, Any]:
        lines, count = _ints(self.lines)[:MOST_TEXTS], len(groups.of)
        sides = np.frombuffer(bytes(self.sides[:MOST_TEXTS]), dtype=np.bool_)
        alike = np.zeros(len(groups.firsts), dtype=bool)
        alike[near.first] = alike[near.second] = True
        order = np.argsort(lines[groups.firsts[near.first]], kind="stable")[: copies.PAIRS_SHOWN]
        same, much = copies.held_out_copies(groups, near, sides)
        return {
            "looked_at": count,
            "is_complete": near.is_complete and len(self.texts) <= MOST_TEXTS,
            "equal": groups.repeated,
            "equal_pairs": groups.pairs(lines),
            "rows": int(alike[groups.of].sum()),
            "share": float(alike[groups.of].mean()) if count else 0.0,
            "pairs": [
                [*sorted((int(lines[groups.firsts[near.first[at]]]), int(lines[groups.firsts[near.second[at]]]))),
                 round(float(near.likeness[at]), 3)]
                for at in order
            ],
            "contradictions": self._contradictions(groups),
            "held_out": {"rows": int(sides.sum()), "equal": same, "near": much},
        }  # fmt: skip

    def _contradictions(self, groups: copies.Groups) -> int:
        """Rows whose text stands elsewhere with another label."""
        if not self.looking.label or self.looking.is_number:
            return 0
        labels = _ints(self.labels)[: len(groups.of)]
        lowest = np.full(len(groups.firsts), np.iinfo(np.int64).max)
        highest = np.full(len(groups.firsts), -1)
        np.minimum.at(lowest, groups.of, labels)
        np.maximum.at(highest, groups.of, labels)
        return int((lowest != highest)[groups.of].sum())

    def _leak(self) -> dict[str, Any]:
        own, by_chance = self.label_words.shares()
        return {"share": own, "by_chance": by_chance, "classes": self.label_words.report()[:CLASSES_SHOWN]}


class _TooLong:
    """How many texts are longer than the encoder reads: counted in its own tokens, far beyond by words."""

    def __init__(self, tokens: Callable[[Sequence[str]], Sequence[int]] | None) -> None:
        self._tokens = tokens
        self._waiting: list[str] = []
        self._counted = 0
        self.count = 0

    def add(self, text: str, words: int) -> None:
        """A token has at least one character, and two frame the text: shorter texts need no counting."""
        if len(text) + 2 <= ENCODER_TOKENS:
            return
        if self._tokens is None or self._counted >= _MOST_COUNTED:
            self.count += words * _WORDS_TO_TOKENS + 2 > ENCODER_TOKENS
        elif words + 2 > ENCODER_TOKENS:
            self.count += 1
        else:
            self._counted += 1
            self._waiting.append(text[:_CHARACTERS_COUNTED])
            if len(self._waiting) == _LONG_AT_ONCE:
                self.finish()

    def finish(self) -> None:
        """Count those that wait."""
        if self._waiting and self._tokens is not None:
            self.count += sum(tokens > ENCODER_TOKENS for tokens in self._tokens(self._waiting))
        self._waiting = []


def _chosen(sketches: Sketches, rows: np.ndarray[Any, np.dtype[np.int64]]) -> Sketches:
    """The sketches of some texts."""
    sizes = np.diff(sketches.offsets)[rows]
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes)])
    places = np.repeat(sketches.offsets[rows] - offsets[:-1], sizes) + np.arange(int(sizes.sum()))
    return Sketches(sketches.signatures[rows], sketches.shingles[places], offsets)


def _ints(values: array[int]) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.frombuffer(values, dtype=np.int64) if len(values) else np.zeros(0, dtype=np.int64)


def _hashable(cell: Any) -> Any:
    return cell if isinstance(cell, str) else repr(cell)


def _name(cell: Any) -> str:
    name = cell.strip() if isinstance(cell, str) else "" if cell is None else str(cell)
    return name[:NAME_CHARACTERS]


def _words(cell: Any) -> str:
    """The text of a cell; of a conversation, what its turns say."""
    if isinstance(cell, list):
        return " ".join(str(turn.get("content") or "") for turn in cell if isinstance(turn, dict))
    return "" if cell is None else str(cell)
