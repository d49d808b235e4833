"""A few rows of a dataset as its page shows them to members: cells as texts, long ones cut."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any, cast

from modeling.models import DatasetVersion
from modeling.rows import layout_of, open_rows, shown_cell

ROWS = 5


@dataclass(frozen=True)
class FewRow:
    """One row: its line in the file, and its cells in the order of the columns."""

    line: int
    cells: list[str]


@dataclass(frozen=True)
class FewRows:
    """The first rows as they are sealed, which is person by person, not in the order of the file."""

    columns: tuple[str, ...]
    rows: list[FewRow]


def few_rows(version: DatasetVersion) -> FewRows | None:
    """The rows, or nothing once they were deleted; those of erased people are absent. Inside the tenant's scope."""
    if version.segments_id is None:
        return None
    with closing(cast(Any, open_rows(version))) as opened:
        rows = [
            FewRow(row.line, [shown_cell(value) for value in row.values]) for _, row in islice(opened, ROWS)
        ]
    return FewRows(layout_of(version).columns, rows)
