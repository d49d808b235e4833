"""What two datasets have in common, such as a training and a validation file: people by handle, rows, texts."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modeling.core.quality_words import words_of

HANDLE_BYTES = 8  # of a handle: enough to tell millions of people apart
MOST_ROWS = 2_000_000


class Marks:
    """Of each row: its person, and the hashes of its cells in the columns compared and of its text."""

    def __init__(self, columns: Sequence[str], texts: Sequence[str], *, unnamed: bytes) -> None:
        self._columns = sorted(columns)
        self.compares = bool(columns)  # without a column in common no row is the same as another
        self._texts = texts
        self._unnamed = unnamed
        self.people, self.rows, self.texts = array("Q"), array("q"), array("q")

    def add(self, handle: bytes, cells: Mapping[str, Any]) -> None:
        """Count one row in; rows without a person's name are nobody's."""
        if len(self.rows) >= MOST_ROWS:
            return
        if handle != self._unnamed:
            self.people.append(int.from_bytes(handle[:HANDLE_BYTES], "big"))
        self.rows.append(hash(tuple(_plain(cells.get(name)) for name in self._columns)))
        if self._texts:
            words = [word for name in self._texts for word in words_of(str(cells.get(name) or ""))]
            if words:
                self.texts.append(hash(" ".join(words)))


def overlap(ours: Marks, theirs: Marks) -> dict[str, Any]:
    """How many people and rows of the other dataset are in this one, too."""
    people = np.unique(np.frombuffer(theirs.people, dtype=np.uint64))
    shared = np.isin(people, np.frombuffer(ours.people, dtype=np.uint64))
    return {
        "people": len(people),
        "shared_people": int(shared.sum()),
        "rows": len(theirs.rows),
        "shared_rows": _shared(ours.rows, theirs.rows) if ours.compares else 0,
        "shared_texts": _shared(ours.texts, theirs.texts),
    }


def _shared(ours: array[int], theirs: array[int]) -> int:
    first, second = (np.frombuffer(one, dtype=np.int64) for one in (ours, theirs))
    return int(np.isin(second, first).sum())


def _plain(cell: Any) -> str:
    return cell.strip() if isinstance(cell, str) else "" if cell is None else repr(cell)
