"""Measures the quality of one version in the background: claims it, reads its rows once, seals what it found."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db.models import F, Q
from django.utils import timezone

from modeling.actions import quality
from modeling.actions.declared_columns import known_column
from modeling.core import bases, quality_tokens
from modeling.core.quality import Looking, Seen, measure
from modeling.core.quality_advice import advise
from modeling.core.quality_overlap import Marks, overlap
from modeling.core.types import Feature
from modeling.models import Dataset, DatasetVersion, QualityReport
from modeling.rows import layout_of, read_rows
from modeling.units import handle_key, held_out_key, is_held_out, person_handle
from saas.lib.errors import Refusal
from tenants import vault
from tenants.models import Tenant, VaultObject
from tenants.scope import scope

KIND = "quality"
LEASE = timedelta(minutes=20)
ATTEMPTS = 3
SECONDS_BETWEEN = 1.0
State = QualityReport.State
_TEXTS = {
    "classification": ("text",), "chat": ("messages", "prompt", "completion"), "": ("text", "catalogue_text"),
}  # fmt: skip


def measure_report(tenant_id: uuid.UUID | str, report_id: uuid.UUID | str) -> None:
    """The task's body. Does nothing when another worker holds the report or it is done."""
    with scope(tenant_id):
        tenant = Tenant.objects.get(pk=tenant_id)
        report = claim(tenant, report_id)
    if report is None:
        return
    try:
        found = _measured(tenant, report)
    except (Refusal, vault.KeyDestroyed):  # the rows were deleted meanwhile: so is the report
        with scope(tenant):
            quality.forget(report.version)
        return
    if found is not None:
        keep(tenant, report, found)


def claim(tenant: Tenant, report_id: uuid.UUID | str) -> QualityReport | None:
    """Take the report for twenty minutes, at most three times; None when there is nothing to take."""
    now = timezone.now()
    free = Q(lease_until=None) | Q(lease_until__lt=now)
    rows = QualityReport.objects.of(tenant).filter(pk=report_id)
    waiting = rows.filter(free, state__in=(State.WAITING, State.RUNNING))
    waiting.filter(attempts__gte=ATTEMPTS).update(state=State.FAILED, lease_until=None)
    if not waiting.update(state=State.RUNNING, lease_until=now + LEASE, attempts=F("attempts") + 1):
        return None
    return rows.select_related("version__dataset", "version__segments", "object", "compared").get()


def _measured(tenant: Tenant, report: QualityReport) -> dict[str, Any] | None:
    """The numbers with advice; None when the report was asked for again or forgotten meanwhile."""
    version = report.version
    other = _newest(tenant, report.compared) if report.compared else None
    looking = looking_at(version)
    ours = theirs = None
    if other is not None:
        ours, theirs = _marks(tenant, version, other, looking)
    said = time.monotonic()
    for step in measure(looking, _seen(tenant, version, ours)):
        if isinstance(step, dict):
            return _with_advice(version, looking, step, ours, theirs)
        if time.monotonic() - said > SECONDS_BETWEEN:
            said = time.monotonic()
            if not _progress(tenant, report, step):
                return None
    return None


def _with_advice(
    version: DatasetVersion, looking: Looking, found: dict[str, Any], ours: Marks | None, theirs: Marks | None
) -> dict[str, Any]:
    dataset = version.dataset
    if ours is not None and theirs is not None:
        found["overlap"] = overlap(ours, theirs)
    used = {*looking.texts, looking.label, looking.item, *looking.declared} - {""}
    advice = advise(found, used=used, unit=version.unit_column, is_catalogue=dataset.is_catalogue)
    return found | {"task": dataset.task, "advice": [one.as_json() for one in advice]}


def looking_at(version: DatasetVersion) -> Looking:
    """What to look for in a version, by its dataset's roles and declarations."""
    dataset = version.dataset
    columns = layout_of(version).columns
    roles = {role: name for role, name in dataset.columns.items() if name in columns}
    texts = [roles[role] for role in _TEXTS.get(dataset.task, ()) if role in roles]
    return Looking(
        columns=columns,
        texts=texts,
        label=roles.get("label", "") if dataset.task in ("classification", "regression", "") else "",
        item=roles.get("item", "") if dataset.task == "recommendation" else "",
        is_number=dataset.task == "regression",
        named=[roles[role] for role in ("unit", "user", "timestamp") if role in roles],
        declared=_features(dataset, columns),
        rows=version.rows,
        tokens=_tokens() if dataset.task in ("classification", "") and texts else None,
    )


def _features(dataset: Dataset, columns: tuple[str, ...]) -> dict[str, Feature]:
    """Columns with bounds or categories, of those that a model on columns uses."""
    found = {}
    for name in columns:
        known = (
            known_column(dataset, name)
            if dataset.uses.get(name) == "feature" or name in dataset.declared
            else None
        )
        if known is not None:
            found[name] = Feature(
                name, known.kind, low=known.low, high=known.high, categories=known.categories
            )
    return found


def _tokens() -> Any:
    try:
        return quality_tokens.counter(bases.path(settings.MODELS_DIR, "minilm-l6"))
    except bases.BaseMissing:  # a quick worker without models estimates by words
        return None


def _seen(tenant: Tenant, version: DatasetVersion, marks: Marks | None) -> Iterator[Seen]:
    """The version's rows; units are numbered as they come, and lie side by side."""
    with scope(tenant):
        split = held_out_key(tenant)
    has_sides = not version.dataset.is_catalogue
    last, number, side = b"", -1, False
    for row in read_rows(version):
        if row.handle != last or number < 0:
            last, number = row.handle, number + 1
            side = has_sides and is_held_out(split, row.handle)
        if marks is not None:
            marks.add(row.handle, row.values)
        yield Seen(number, side, row.number, row.values)


def _marks(
    tenant: Tenant, version: DatasetVersion, other: DatasetVersion, looking: Looking
) -> tuple[Marks, Marks]:
    """Marks to fill while this version is read, and those of the other one, which is read first."""
    theirs_names = layout_of(other).columns
    columns = [name for name in looking.columns if name in theirs_names]
    texts = [name for name in looking.texts if name in theirs_names]
    with scope(tenant):
        unnamed = person_handle(handle_key(tenant), "")
    ours, theirs = (Marks(columns, texts, unnamed=unnamed) for _ in range(2))
    for row in read_rows(other, columns=columns):
        theirs.add(row.handle, row.values)
    return ours, theirs


def _newest(tenant: Tenant, dataset: Dataset) -> DatasetVersion | None:
    with scope(tenant):
        versions = DatasetVersion.objects.of(tenant).filter(dataset=dataset, dataset__deleted_at=None)
        return versions.exclude(segments=None).select_related("dataset").order_by("-number").first()


def _progress(tenant: Tenant, report: QualityReport, percent: int) -> bool:
    with scope(tenant):
        rows = QualityReport.objects.of(tenant).filter(pk=report.pk, epoch=report.epoch)
        return bool(rows.update(percent=percent, lease_until=timezone.now() + LEASE))


def keep(tenant: Tenant, report: QualityReport, found: Mapping[str, Any]) -> None:
    """Seal the numbers and put them into the former ones' place, unless the report was asked for again or forgotten."""
    sealed = vault.put(tenant, KIND, json.dumps(found).encode())
    with scope(tenant):
        rows = QualityReport.objects.of(tenant).filter(pk=report.pk, epoch=report.epoch)
        is_kept = rows.update(
            object=sealed, state=State.READY, percent=100, lease_until=None, done_at=timezone.now()
        )
        former: VaultObject | None = report.object if is_kept else sealed
        if former is not None:
            vault.destroy(former)
