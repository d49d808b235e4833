"""What the pages of data show: rows of the list, one dataset with its columns, versions and runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.utils.translation import gettext as _

from modeling.actions import holds
from modeling.actions.dataset_schema import present
from modeling.actions.dataset_versions import home_of
from modeling.actions.declared_columns import facts_of, labelled_column, proposals
from modeling.core.column_roles import LEAVE
from modeling.models import Dataset, DatasetVersion, Erasure, File, Inspection, Job
from modeling.queries import job_pages, words
from modeling.queries.job_pages import JobPage
from modeling.queries.ledger_pages import AccountCard, account_card
from tenants.models import Tenant

ERRORS_SHOWN = 50
CATEGORIES_SHOWN = 6
JOBS_SHOWN = 10


@dataclass(frozen=True)
class DatasetRow:
    """One dataset in the list, by its newest version."""

    public_id: str
    name: str
    task_words: str
    rows: int
    units: int
    error_count: int
    is_catalogue: bool
    created_at: datetime


@dataclass(frozen=True)
class ColumnRow:
    """One column: what it holds, what it is and why, and what was declared of it."""

    name: str
    kind: str
    role: str
    reason: str
    is_used: bool
    declared: str


@dataclass(frozen=True)
class Erased:
    """What the newest version still counts, and nobody can read any more."""

    people: int
    rows: int


@dataclass(frozen=True)
class DatasetPage:
    """One dataset as its page prints it."""

    task_words: str
    can_train: bool
    columns: list[ColumnRow]
    has_labels: bool
    errors: list[dict[str, Any]]
    jobs: list[JobPage]
    is_held: bool  # a legal hold covers it
    erased: Erased | None  # people of the newest version who were erased after it was made
    account: AccountCard | None = field(default=None)


def use_words(dataset: Dataset) -> str:
    """What a dataset is good for: a task, a catalogue, or not known yet."""
    if dataset.is_catalogue:
        return _("Catalogue")
    return words.task_words(dataset.task) or _("to be named")


def datasets_of(tenant: Tenant) -> list[DatasetRow]:
    """Datasets that were not deleted, the newest first, by their newest version."""
    versions = DatasetVersion.objects.of(tenant).filter(dataset__deleted_at=None).select_related("dataset")
    newest: dict[object, DatasetVersion] = {}
    for version in versions.order_by("number"):
        newest[version.dataset_id] = version
    rows = [
        DatasetRow(
            public_id=one.dataset.public_id,
            name=one.dataset.name,
            task_words=use_words(one.dataset),
            rows=one.rows,
            units=one.units,
            error_count=one.error_count,
            is_catalogue=one.dataset.is_catalogue,
            created_at=one.created_at,
        )
        for one in newest.values()
    ]
    return sorted(rows, key=lambda row: row.created_at, reverse=True)


def unready_files(tenant: Tenant) -> list[File]:
    """Files that are being checked or were refused, the newest first."""
    waiting = (File.Status.UPLOADED, File.Status.ERROR)
    return list(File.objects.of(tenant).filter(deleted_at=None, status__in=waiting).order_by("-id")[:50])


def inspection_of(tenant: Tenant, file: File) -> Inspection | None:
    """How far the check of a file is: bytes and rows so far; waiting as long as nobody holds its lease."""
    return Inspection.objects.of(tenant).filter(file=file).first()


def newest_version(tenant: Tenant, dataset: Dataset) -> DatasetVersion | None:
    """The newest version of a dataset."""
    return (
        DatasetVersion.objects.of(tenant)
        .filter(dataset=dataset)
        .select_related("file")
        .order_by("-number")
        .first()
    )


def dataset_of_file(tenant: Tenant, file: File) -> Dataset | None:
    """The dataset that a file became part of."""
    return home_of(tenant, file)


def dataset_page(tenant: Tenant, dataset: Dataset, version: DatasetVersion) -> DatasetPage:
    """One dataset as its page prints it."""
    jobs = (
        job_pages.jobs_of(tenant)
        .filter(dataset_version__dataset=dataset)
        .order_by("-created_at")[:JOBS_SHOWN]
    )
    columns = column_rows(dataset, version)
    account = dataset.account
    return DatasetPage(
        task_words=use_words(dataset),
        can_train=not dataset.is_catalogue and version.segments_id is not None,
        columns=columns,
        has_labels=bool(version.labels) and dataset.columns.get("label") == labelled_column(version),
        errors=version.errors[:ERRORS_SHOWN],
        jobs=job_pages.job_rows(tenant, jobs),
        is_held=holds.is_held(tenant, dataset=dataset),
        erased=erased_since(tenant, dataset, version),
        account=account_card(tenant, account) if account else None,
    )


def erased_since(tenant: Tenant, dataset: Dataset, version: DatasetVersion) -> Erased | None:
    """People erased from a version after it was made: its counts have them until the next version."""
    erasures = Erasure.objects.of(tenant).filter(
        created_at__gt=version.created_at, reached__contains=[{"dataset": dataset.public_id}]
    )
    rows = [
        one["rows"]
        for erasure in erasures.only("reached")
        for one in erasure.reached
        if one["dataset"] == dataset.public_id and one["rows"]
    ]
    return Erased(len(rows), sum(rows)) if rows else None


def column_rows(dataset: Dataset, version: DatasetVersion) -> list[ColumnRow]:
    """The columns of a version: as declared, else as guessed with the reason."""
    schema = present(dataset, version)
    used = {**schema.uses} | {name: role for role, name in sorted(schema.roles.items()) if name}
    reasons = {one.column: one.reason for one in proposals(dataset, version)}
    return [
        ColumnRow(
            name=fact.name,
            kind=fact.kind,
            role=words.role_words(used.get(fact.name, LEAVE)),
            reason=reasons.get(fact.name, ""),
            is_used=used.get(fact.name, LEAVE) != LEAVE,
            declared=_declared_words(dataset.declared.get(fact.name)),
        )
        for fact in facts_of(version)
    ]


def _declared_words(declared: dict[str, Any] | None) -> str:
    """Bounds or the first categories."""
    if declared is None:
        return ""
    if declared["kind"] == "number":
        return f"{declared['low']:g} – {declared['high']:g}"
    names = declared["values"]
    return ", ".join(names[:CATEGORIES_SHOWN]) + (" …" if len(names) > CATEGORIES_SHOWN else "")


def open_jobs(tenant: Tenant, dataset: Dataset) -> int:
    """How many jobs on this dataset have not ended."""
    return Job.objects.of(tenant).filter(dataset_version__dataset=dataset, state__in=Job.OPEN).count()
