"""Quality reports: asked for at each new version, sealed, read by members, forgotten with the rows."""

from __future__ import annotations

import json
from typing import Any

from django.db.models import F

from modeling.models import Dataset, DatasetVersion, QualityReport
from saas.lib import background
from tenants import vault

State = QualityReport.State


def ask(version: DatasetVersion, *, compared: Dataset | None = None) -> QualityReport:
    """Have a version measured, again where it was; what is there stays readable meanwhile. In the tenant's scope."""
    tenant_id = version.tenant_id
    reports = QualityReport.objects.of(tenant_id)
    report, is_new = reports.get_or_create(version=version, defaults={"compared": compared})
    if not is_new:
        reports.filter(pk=report.pk).update(
            state=State.WAITING,
            percent=0,
            attempts=0,
            lease_until=None,
            compared=compared,
            epoch=F("epoch") + 1,
        )
    background.enqueue("modeling.measure_quality", tenant_id=tenant_id, report_id=report.pk)
    return report


def forget(version: DatasetVersion) -> None:
    """Destroy a version's report; a run under way keeps nothing. In the tenant's scope."""
    for report in (
        QualityReport.objects.of(version.tenant_id).filter(version=version).select_related("object")
    ):
        QualityReport.objects.of(version.tenant_id).filter(pk=report.pk).delete()
        if report.object is not None:
            vault.destroy(report.object)


def renew(dataset: Dataset) -> None:
    """After an erasure: forget the reports of all versions and have the newest measured again. In the scope."""
    versions = DatasetVersion.objects.of(dataset.tenant_id).filter(dataset=dataset)
    for version in versions:
        forget(version)
    newest = versions.exclude(segments=None).order_by("-number").first()
    if newest is not None:
        ask(newest)


def report_of(version: DatasetVersion) -> QualityReport | None:
    """The row of a version's report."""
    rows = QualityReport.objects.of(version.tenant_id).filter(version=version)
    return rows.select_related("object", "compared").first()


def numbers_of(report: QualityReport) -> dict[str, Any] | None:
    """The sealed numbers; None before the first run has ended."""
    if report.object is None:
        return None
    found: dict[str, Any] = json.loads(vault.get(report.object))
    return found
