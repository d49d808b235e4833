"""What one file may cost, and what is wrong with it: errors by line, column and rule, never with a cell's content."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

ERRORS_KEPT = 1_000


@dataclass(frozen=True)
class Budget:
    """What one file may cost: decoded bytes in all, bytes of one row, columns, rows."""

    decoded_bytes: int = 4 << 30
    row_bytes: int = 1 << 20
    columns: int = 1_024
    rows: int = 50_000_000


@dataclass(frozen=True)
class RowError:
    """What is wrong where: line from 1, column from 1 (0: the whole line), the broken rule and what to do.

    The column is the cell's number where the rule is about a cell of CSV or Parquet (ragged, nul, column names), else
    the character. Rows of Parquet have no lines: they are counted from 1.
    """

    line: int
    column: int
    rule: str
    fix: str


class FileRefused(Exception):
    """The file as a whole cannot be read; `error` says where and what to do."""

    def __init__(self, error: RowError) -> None:
        super().__init__(error.fix)
        self.error = error
        self.code = error.rule
        self.message = error.fix


class RowRefused(Exception):
    """One row cannot be read; the others can."""

    def __init__(self, column: int, rule: str, fix: str) -> None:
        super().__init__(rule)
        self.column = column
        self.rule = rule
        self.fix = fix


class Findings:
    """Row errors: the first 1,000 kept, all counted by rule."""

    def __init__(self) -> None:
        self.kept: list[RowError] = []
        self.by_rule: Counter[str] = Counter()

    def add(self, error: RowError) -> None:
        """Note one bad row."""
        self.by_rule[error.rule] += 1
        if len(self.kept) < ERRORS_KEPT:
            self.kept.append(error)


def refuse(rule: str, fix: str, *, line: int = 0, column: int = 0) -> FileRefused:
    """A FileRefused to raise."""
    return FileRefused(RowError(line, column, rule, fix))
