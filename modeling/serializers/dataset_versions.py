"""Versions of datasets, their differences, and erasures on the wire."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from modeling.actions.dataset_versions import UNITS_MOST, Asked
from modeling.actions.erasures import Asked as ErasureAsked
from modeling.models import DatasetVersion, Erasure, VersionChange, VersionDiff
from modeling.queries.lineage import VersionNode

MOST_LINES = 1 << 53


class VersionRequest(serializers.Serializer[Any]):
    """POST /v1/datasets/{id}/versions."""

    mode = serializers.ChoiceField(list(DatasetVersion.CHAINED))
    file = serializers.CharField(required=False, allow_blank=True, allow_null=True, default="", max_length=64)
    units = serializers.ListField(
        child=serializers.CharField(max_length=1_000), required=False, default=list, max_length=UNITS_MOST,
        help_text="Whom to remove, as written in the unit column (or in the key column).",
    )  # fmt: skip
    key = serializers.CharField(
        required=False, allow_blank=True, allow_null=True, default="", max_length=200,
        help_text="Where each row is one person, and in a catalogue: the column whose values name the rows.",
    )  # fmt: skip

    def asked(self) -> Asked:
        """The validated request."""
        data = self.validated_data
        return Asked(data["mode"], data["file"] or "", tuple(data["units"]), data["key"] or "")


class ErasureRequest(serializers.Serializer[Any]):
    """POST /v1/datasets/{id}/erasures."""

    unit = serializers.CharField(required=False, allow_null=True, max_length=1_000)
    line = serializers.IntegerField(required=False, allow_null=True, min_value=1, max_value=MOST_LINES)
    everywhere = serializers.BooleanField(
        required=False,
        default=False,
        help_text="In every dataset that knows this person, not in this one alone.",
    )

    def asked(self) -> ErasureAsked:
        """The validated request."""
        data = self.validated_data
        return ErasureAsked(data.get("unit"), data.get("line"), data["everywhere"])


def version_body(node: VersionNode) -> dict[str, Any]:
    """A version with what it was made of and what was made of it."""
    version = node.version
    return {
        "object": "dataset.version",
        "dataset": version.dataset.public_id,
        "number": version.number,
        "status": "ready" if version.segments_id else "deleted",
        "mode": version.mode,
        "parent": version.parent.number if version.parent else None,
        "file": version.file.public_id if version.file else None,
        "created_at": int(version.created_at.timestamp()),
        "created_by": version.made_by or (version.file.created_by if version.file else ""),
        "rows": version.rows,
        "units": version.units,
        "unit": version.unit_column,
        "changes": version.changes or None,
        "content_hash": version.content_hash,
        "rows_hash": version.rows_hash or None,
        "jobs": [job.public_id for job in node.jobs],
        "models": [job.model for job in node.jobs if job.model],
        "progress": None,
        "error": None,
    }


def change_body(change: VersionChange) -> dict[str, Any]:
    """A version that is being made, or could not be."""
    is_failed = change.state == VersionChange.State.FAILED
    return {
        "object": "dataset.version",
        "dataset": change.dataset.public_id,
        "number": change.number,
        "status": {"queued": "queued", "running": "in_progress"}.get(change.state, change.state),
        "mode": change.mode,
        "parent": change.base.number,
        "file": change.file.public_id if change.file else None,
        "created_at": int(change.created_at.timestamp()),
        "created_by": change.created_by,
        "rows": None,
        "units": None,
        "unit": change.base.unit_column,
        "changes": None,
        "content_hash": None,
        "rows_hash": None,
        "jobs": [],
        "models": [],
        "progress": {"rows": change.rows_done, "of": change.rows_total},
        "error": change.error if is_failed else None,
    }


def diff_body(
    diff: VersionDiff, *, has_more: bool, data: list[dict[str, Any]], offset: int
) -> dict[str, Any]:
    """Counts, and a page of the rows that differ."""
    found = diff.found or {}
    return {
        "object": "dataset.diff",
        "dataset": diff.dataset.public_id,
        "from": diff.first.number,
        "to": diff.second.number,
        "status": "ready" if diff.found is not None else "in_progress",
        "rows": found.get("rows"),
        "people": found.get("people"),
        "columns": found.get("columns"),
        "classes": found.get("classes"),
        "listed": found.get("listed"),
        "data": data,
        "offset": offset,
        "has_more": has_more,
    }


def erasure_body(erasure: Erasure) -> dict[str, Any]:
    """An erasure; `person` is a keyed hash, the only trace of who it was."""
    return {
        "id": erasure.public_id,
        "object": "erasure",
        "created_at": int(erasure.created_at.timestamp()),
        "created_by": erasure.created_by,
        "person": erasure.person,
        "datasets": erasure.reached,
        "models": erasure.models_told,
        "open_jobs": erasure.open_jobs,
        "certificate": erasure.certificate,
    }
