"""Versions made in this process for the tests of this folder: a file uploaded, a change asked for, and made."""

from __future__ import annotations

from typing import Any

from modeling.actions import version_making
from modeling.models import DatasetVersion, VersionChange
from modeling.rows import layout_of, open_rows
from tenants.models import Tenant
from tenants.scope import scope
from tests.modeling.clinic import uploaded


def first_version(api: Any, tenant: Tenant, content: bytes, **more: Any) -> DatasetVersion:
    """Upload and inspect; the version that came of it."""
    return newest(tenant, api.get(f"/v1/files/{uploaded(api, tenant, content, **more)}").json()["dataset"])


def newest(tenant: Tenant, dataset: str) -> DatasetVersion:
    """A dataset's newest version."""
    with scope(tenant):
        rows = DatasetVersion.objects.of(tenant).filter(dataset__public_id=dataset)
        return rows.select_related("dataset", "file", "parent", "segments").order_by("-number")[0]


def asked(api: Any, dataset: str, mode: str, **body: Any) -> Any:
    """The answer to the request for a next version."""
    return api.post(f"/v1/datasets/{dataset}/versions", {"mode": mode, **body})


def made(api: Any, tenant: Tenant, dataset: str, mode: str, **body: Any) -> dict[str, Any]:
    """Ask for a version and make it here; its body, whether it succeeded or not."""
    answer = asked(api, dataset, mode, **body)
    assert answer.status_code == 200, answer.content
    with scope(tenant):
        change = VersionChange.objects.of(tenant).get(dataset__public_id=dataset, state="queued")
    version_making.make(tenant.pk, change.pk)
    found: dict[str, Any] = api.get(f"/v1/datasets/{dataset}/versions/{change.number}").json()
    return found


def rows_of(version: DatasetVersion) -> list[tuple[str, ...]]:
    """All readable rows in the order of their lines."""
    names = layout_of(version).columns
    order = sorted(range(len(names)), key=lambda at: names[at])
    rows = sorted((row.line, tuple(row.values[at] for at in order)) for _handle, row in open_rows(version))
    assert len({line for line, _row in rows}) == len(rows), "two rows on one line"
    return [row for _line, row in rows]


def handles_of(version: DatasetVersion) -> dict[bytes, list[tuple[int, tuple[str, ...]]]]:
    """handle -> the person's (line, values)."""
    found: dict[bytes, list[tuple[int, tuple[str, ...]]]] = {}
    for handle, row in open_rows(version):
        found.setdefault(handle, []).append((row.line, tuple(row.values)))
    return found
