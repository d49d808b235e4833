"""What the pages of versions show: the chain with what was made of it, files that could be joined, one difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from django.utils.formats import date_format
from django.utils.translation import ngettext

from modeling.actions.version_diffs import Shown
from modeling.models import Dataset, DatasetVersion, File, VersionChange, VersionDiff
from modeling.queries import lineage
from modeling.queries.lineage import VersionNode
from modeling.rows import layout_of
from tenants.models import Tenant

FILES_SHOWN = 100


@dataclass(frozen=True)
class Chain:
    """A dataset's versions as its page prints them."""

    nodes: list[VersionNode]
    change: VersionChange | None  # being made
    failed: VersionChange | None  # the last one, when it could not be made
    files: list[tuple[str, str]]
    columns: list[str]  # that can name a row; none where a column names people
    has_runs: bool


def chain(tenant: Tenant, dataset: Dataset, version: DatasetVersion) -> Chain:
    """The versions of a dataset, and what a next one can be made of."""
    nodes = lineage.of_dataset(tenant, dataset)
    changes = VersionChange.objects.of(tenant).filter(dataset=dataset).select_related("file", "base")
    last = changes.order_by("-id").first()
    is_failed = last is not None and last.state == VersionChange.State.FAILED
    return Chain(
        nodes=nodes,
        change=last if last is not None and last.state in VersionChange.OPEN else None,
        failed=last if is_failed else None,
        files=joinable(tenant, dataset),
        columns=[] if dataset.unit_column else list(layout_of(version).columns),
        has_runs=any(node.jobs for node in nodes),
    )


def joinable(tenant: Tenant, dataset: Dataset) -> list[tuple[str, str]]:
    """(public id, words) of files whose rows stand in a dataset of their own, the newest first."""
    versions = DatasetVersion.objects.of(tenant).filter(
        dataset__deleted_at=None,
        dataset__is_catalogue=dataset.is_catalogue,
        file__deleted_at=None,
        file__expires_at=None,
        mode=DatasetVersion.Mode.FILE,
    )
    found = versions.exclude(dataset=dataset).exclude(file=None).exclude(segments=None)
    return [
        (one.file.public_id, _row_words(one.file, one.rows))
        for one in found.select_related("file").order_by("-id")[:FILES_SHOWN]
        if one.file is not None
    ]


def _row_words(file: File, rows: int) -> str:
    counted = ngettext("%(n)s row", "%(n)s rows", rows) % {"n": f"{rows:,}"}
    uploaded = date_format(file.created_at.astimezone(UTC), "j M Y, H:i")
    return f"{file.name} · {counted} · {uploaded} UTC"


@dataclass(frozen=True)
class Cell:
    """One column of a row that differs; equal cells of a changed row are left out."""

    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True)
class DiffRow:
    """One row that differs, as the page prints it."""

    kind: str
    first_line: int | None
    second_line: int | None
    cells: list[Cell]


def diff_rows(rows: Sequence[Shown]) -> list[DiffRow]:
    """Rows that differ, with the cells that say how."""
    return [DiffRow(row.kind, row.first_line, row.second_line, _cells(row)) for row in rows]


def _cells(row: Shown) -> list[Cell]:
    before, after = row.before or {}, row.after or {}
    names = list(dict.fromkeys([*before, *after]))
    cells = [Cell(name, before.get(name), after.get(name)) for name in names]
    return [cell for cell in cells if cell.before != cell.after] if row.kind == "changed" else cells


def classes(diff: VersionDiff) -> list[dict[str, Any]]:
    """Labels with their shares before and after, in percent."""
    found = (diff.found or {}).get("classes", [])
    before, after = (sum(one[side] for one in found) or 1 for side in ("before", "after"))
    return [
        {**one, "before_share": one["before"] / before, "after_share": one["after"] / after} for one in found
    ]
