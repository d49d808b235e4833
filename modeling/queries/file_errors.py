"""What was wrong with the rows of a file: counted by rule, filtered, in pages, and as CSV or JSON to take away."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from modeling.models import DatasetVersion, File
from tenants.models import Tenant

PAGE_SIZE = 50
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_COLUMNS = ("line", "column", "rule", "fix")


@dataclass(frozen=True)
class ListedError:
    """One error, numbered from 1 in the order of the file."""

    number: int
    line: int
    column: int
    rule: str
    fix: str

    def as_json(self) -> dict[str, Any]:
        """An object of the API."""
        found = {"id": str(self.number), "object": "file.error"}
        return found | {name: getattr(self, name) for name in _COLUMNS}


@dataclass(frozen=True)
class FileErrors:
    """A file's errors: the first 1,000 listed, all counted."""

    listed: list[ListedError]
    by_rule: dict[str, int] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many there are, listed or not."""
        return sum(self.by_rule.values())

    def of_rule(self, rule: str) -> list[ListedError]:
        """Those of one rule; all without one."""
        return [one for one in self.listed if not rule or one.rule == rule]

    def rules(self) -> list[tuple[str, int]]:
        """(rule, how often), the most frequent first."""
        return sorted(self.by_rule.items(), key=lambda one: (-one[1], one[0]))


def errors_of(tenant: Tenant, file: File) -> FileErrors:
    """What inspection found: why the file was refused, or the rows that were left out of it."""
    found, by_rule = file.errors, file.errors_by_rule
    if file.status != File.Status.ERROR:
        rows = DatasetVersion.objects.of(tenant).filter(file=file).exclude(mode__in=DatasetVersion.CHAINED)
        version = rows.order_by("-number").first()
        if version is not None:
            found, by_rule = version.errors, version.errors_by_rule
    listed = [
        ListedError(number, one["line"], one["column"], one["rule"], one["fix"])
        for number, one in enumerate(found, start=1)
    ]
    counted = by_rule if by_rule or not listed else {one.rule: 1 for one in listed}
    return FileErrors(listed, dict(counted))


def as_csv(errors: list[ListedError]) -> Iterator[bytes]:
    """A CSV file; what a spreadsheet would take for a formula is escaped."""
    sink = io.StringIO()
    writer = csv.writer(sink)
    writer.writerow(_COLUMNS)
    for one in errors:
        writer.writerow([plain(one.line), plain(one.column), plain(one.rule), plain(one.fix)])
    yield sink.getvalue().encode()


def plain(value: object) -> str:
    """A cell that no spreadsheet evaluates: what begins like a formula gets an apostrophe in front."""
    text = str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def as_json(errors: FileErrors, listed: list[ListedError]) -> Iterator[bytes]:
    """The errors with their counts as one JSON object."""
    body = {"error_count": errors.count, "errors_by_rule": errors.by_rule}
    yield json.dumps(body | {"errors": [one.as_json() for one in listed]}, indent=2).encode()
