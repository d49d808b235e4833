"""What is what in a dataset: roles, unit of privacy, sensitive attributes and declared bounds, checked as a whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _

from modeling.actions import quality
from modeling.actions.datasets import resegment
from modeling.actions.declared_columns import proposals, task_of
from modeling.actions.schema_checks import Problem, problems
from modeling.core.column_roles import FEATURE, USES
from modeling.models import Dataset, DatasetVersion
from modeling.packs.base import ROLES
from saas.lib.errors import Refusal
from tenants import audit
from tenants.audit import Actor
from tenants.models import Tenant

TAKEN = (*ROLES, *USES)


@dataclass(frozen=True)
class Schema:
    """`roles`: role -> column, `unit` "" saying that each row is one person and absent saying nothing; `uses`:
    column -> feature | sensitive | leave; `declared`: column -> {"kind": "number", "low", "high"} or {"kind":
    "category", "values"}."""

    roles: Mapping[str, str] = field(default_factory=dict)
    uses: Mapping[str, str] = field(default_factory=dict)
    declared: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def task(self) -> str:
        """What the dataset is good for."""
        is_number = self.declared.get(self.roles.get("label", ""), {}).get("kind") == "number"
        return task_of(self.roles, has_features=FEATURE in self.uses.values(), is_number=is_number)


def present(dataset: Dataset, version: DatasetVersion) -> Schema:
    """As declared; before that as guessed."""
    if dataset.declared_at is not None:
        return Schema(dict(dataset.columns), dict(dataset.uses), dict(dataset.declared))
    uses = {one.column: one.role for one in proposals(dataset, version) if one.role in USES}
    times = {one.role: one.column for one in proposals(dataset, version) if one.role == "timestamp"}
    roles = times | {role: name for role, name in dataset.columns.items() if name}
    return Schema(roles | {"unit": dataset.unit_column}, uses, {})


def from_columns(
    asked: Mapping[str, str | Sequence[str]], declared: Mapping[str, Mapping[str, Any]]
) -> Schema:
    """A schema from role -> column or list of columns; raises Refusal for an unknown role or a list too many."""
    roles: dict[str, str] = {}
    uses: dict[str, str] = {}
    for role, named in asked.items():
        names = [named] if isinstance(named, str) else list(named)
        if role not in TAKEN:
            raise Refusal(
                f"columns names these roles only: {', '.join(TAKEN)}.", param="columns", code="unknown_role"
            )
        if role in USES:
            doubled = next((name for name in names if name in uses), None)
            if doubled is not None:
                raise Refusal("A column is named in two roles.", param=f"columns.{role}", code="two_roles")
            uses |= dict.fromkeys((name for name in names if name), role)
        elif len(names) > 1:
            raise Refusal(
                f"Only one column can be the {role}.", param=f"columns.{role}", code="one_column_only"
            )
        elif names:
            roles[role] = names[0]
    return Schema(roles, uses, declared)


def readable_version(tenant: Tenant, dataset: Dataset) -> DatasetVersion:
    """A dataset's newest version; raises Refusal when its rows are gone."""
    versions = DatasetVersion.objects.of(tenant).filter(dataset=dataset).select_related("dataset")
    version = versions.order_by("-number").first()
    if version is None or version.segments_id is None:
        raise Refusal(_("The rows of this dataset were deleted."), status=410, code="gone")
    return version


def completed(dataset: Dataset, asked: Schema) -> Schema:
    """With what follows: a recommender's unit is its user, and a fixed unit stays as it is."""
    roles = {role: name for role, name in asked.roles.items() if name or role == "unit"}
    if "unit" not in roles and roles.get("user"):
        roles["unit"] = roles["user"]
    if "unit" not in roles and (dataset.unit_fixed or dataset.is_catalogue):
        roles["unit"] = dataset.unit_column
    return replace(asked, roles=roles)


def declare(
    tenant: Tenant, actor: Actor, dataset: Dataset, version: DatasetVersion, asked: Schema
) -> Dataset:
    """Keep the schema; rows are cut again where the unit changes. In the tenant's scope; raises Refusal."""
    schema = completed(dataset, asked)
    found = problems(dataset, version, schema.roles, schema.uses, schema.declared)
    if found:
        raise found[0].refusal()
    columns = {role: name for role, name in schema.roles.items() if name} | {"unit": schema.roles["unit"]}
    Dataset.objects.of(tenant).filter(pk=dataset.pk).update(
        columns=columns,
        uses=dict(schema.uses),
        declared={name: dict(one) for name, one in schema.declared.items()},
        task="" if dataset.is_catalogue else schema.task,
        declared_at=timezone.now(),
    )
    if schema.roles["unit"] != dataset.unit_column:
        version = resegment(version, schema.roles["unit"])
    quality.ask(version)
    audit.record(tenant, actor, "dataset.columns", dataset, unit=schema.roles["unit"], task=schema.task)
    return Dataset.objects.of(tenant).get(pk=dataset.pk)


__all__ = [
    "TAKEN",
    "Problem",
    "Schema",
    "completed",
    "declare",
    "from_columns",
    "present",
    "problems",
    "readable_version",
]
