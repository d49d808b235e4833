"""A dataset's schema and its quality report on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from modeling.actions.declared_columns import proposals
from modeling.core.column_roles import USES
from modeling.models import Dataset, DatasetVersion, QualityReport
from modeling.queries.quality_words import sentence

MOST_COLUMNS = 1_024
LONGEST = 200


@extend_schema_field({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]})
class NamesField(serializers.Field[Any, Any, Any, Any]):
    """A column's name, or a list of names."""

    def to_internal_value(self, data: Any) -> str | list[str]:
        """Texts of at most 200 characters."""
        names = data if isinstance(data, list) else [data]
        if len(names) > MOST_COLUMNS or not all(
            isinstance(one, str) and len(one) <= LONGEST for one in names
        ):
            raise serializers.ValidationError("Write a column's name, or a list of names.")
        return list(names) if isinstance(data, list) else str(data)

    def to_representation(self, value: Any) -> Any:
        """As it is."""
        return value


class DeclaredFields(serializers.Serializer[Any]):
    """Public bounds of a number, or all categories."""

    kind = serializers.ChoiceField(["number", "category"])
    low = serializers.FloatField(required=False)
    high = serializers.FloatField(required=False)
    values = serializers.ListField(
        child=serializers.CharField(max_length=LONGEST), required=False, max_length=1_000
    )


class SchemaRequest(serializers.Serializer[Any]):
    """POST /v1/datasets/{id}: what is left out stays as it is."""

    columns = serializers.DictField(
        child=NamesField(),
        required=False,
        help_text="Role to column: text, label, unit, user, item, timestamp, messages, prompt, completion; to a list "
        'of columns: feature, sensitive, leave. A unit of "" says that each row is one person.',
    )
    declared = serializers.DictField(
        child=DeclaredFields(),
        required=False,
        help_text="Column to its public bounds or categories: what is known in general, never measured from the rows.",
    )


class QualityRequest(serializers.Serializer[Any]):
    """POST /v1/datasets/{id}/quality: measure again."""

    compare_with = serializers.CharField(
        required=False,
        allow_null=True,
        max_length=64,
        help_text="Another dataset whose people and rows are looked for here.",
    )


def schema_body(dataset: Dataset, version: DatasetVersion | None) -> dict[str, Any]:
    """`columns` (role to a name or names), `declared`, and `guesses` with their reasons."""
    guesses = proposals(dataset, version) if version is not None else []
    columns: dict[str, Any] = dict(dataset.columns)
    for use in USES:
        if named := sorted(name for name, found in dataset.uses.items() if found == use):
            columns[use] = named
    return {
        "columns": columns,
        "declared": dataset.declared,
        "guesses": [{"column": one.column, "role": one.role, "reason": one.reason} for one in guesses],
    }


def quality_body(
    dataset: Dataset, version: DatasetVersion, report: QualityReport | None, numbers: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The report of a dataset's newest version, or how far it is."""
    found = dict(numbers) if numbers else None
    advice = found.pop("advice") if found else []
    made = report.done_at if report else None
    return {
        "object": "dataset.quality",
        "dataset": dataset.public_id,
        "version": version.number,
        "status": report.state if report else "none",
        "percent": report.percent if report else 0,
        "made_at": int(made.timestamp()) if made else None,
        "compared_with": report.compared.public_id if report and report.compared else None,
        "notice": "Private: made from your records without noise. Not shareable, not part of any card.",
        "advice": [
            {"code": one["code"], "level": one["level"], "message": str(sentence(one["code"], one["values"]))}
            for one in advice
        ],
        "report": found,
    }
