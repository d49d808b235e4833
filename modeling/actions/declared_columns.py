"""What a dataset's columns hold, as declared by its tenant, or as its vertical knows; never measured from the rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modeling.core.column_roles import Knowledge, Proposal, propose
from modeling.core.columns import ColumnFacts, Guess, Guesses, guess_roles, normal
from modeling.models import Dataset, DatasetVersion
from modeling.packs import PACKS
from modeling.packs.base import ROLES
from modeling.packs.tables import BANDS, KnownColumn


def known_column(dataset: Dataset, name: str) -> KnownColumn | None:
    """Bounds or categories of a column: declared for this dataset, else known in its vertical."""
    declared = dataset.declared.get(name)
    return from_declared(declared) if declared else PACKS[dataset.pack].known_column(normal(name))


def from_declared(declared: Mapping[str, Any]) -> KnownColumn:
    """A declaration as the verticals write theirs."""
    if declared["kind"] == "number":
        return KnownColumn("number", float(declared["low"]), float(declared["high"]))
    return KnownColumn("category", categories=tuple(str(one) for one in declared["values"]))


def used_as(dataset: Dataset, use: str) -> frozenset[str]:
    """The columns declared as feature, sensitive or leave; none where nobody declared any."""
    return frozenset(name for name, found in dataset.uses.items() if found == use)


def label_names(dataset: Dataset, column: str) -> tuple[str, ...]:
    """The class names declared for the dataset's label column; none for another column."""
    declared = dataset.declared.get(column)
    if column != dataset.columns.get("label") or not declared or declared["kind"] != "category":
        return ()
    return tuple(str(one) for one in declared["values"])


def labelled_column(version: DatasetVersion) -> str:
    """The column whose values are `version.labels`."""
    guessed = version.schema.get("guesses", {}).get("label", {}).get("column", "")
    return str(version.schema.get("label_column", guessed))


def facts_of(version: DatasetVersion) -> list[ColumnFacts]:
    """The public facts about each column."""
    return [ColumnFacts(**one) for one in version.schema.get("columns", [])]


def proposals(dataset: Dataset, version: DatasetVersion) -> list[Proposal]:
    """A role for every column with the reason, by the vertical's names first, by shape second."""
    pack = PACKS[dataset.pack]

    def knows(name: str) -> str:
        found = pack.known_column(name)
        return found.kind if found else ""

    knowledge = Knowledge(
        knows=knows,
        sensitive=() if dataset.is_catalogue else pack.protected,
        banded=tuple(BANDS),
        times=() if dataset.is_catalogue else pack.hints("timestamp"),
    )
    return propose(facts_of(version), guesses_of(dataset, version), knowledge)


def guesses_of(dataset: Dataset, version: DatasetVersion) -> Guesses:
    """The roles that inspection found by name and shape; found again where a version does not say."""
    kept = version.schema.get("guesses")
    if kept is None:
        hints = {role: PACKS[dataset.pack].hints(role) for role in ROLES}
        return guess_roles(facts_of(version), hints, is_catalogue=dataset.is_catalogue)
    roles = {str(role): Guess(one["column"], one["code"], one["reason"]) for role, one in kept.items()}
    return Guesses(_task(roles), roles)


def _task(roles: Mapping[str, Guess]) -> str:
    return task_of(dict.fromkeys(roles, "-"), has_features=True)


def task_of(roles: Mapping[str, str], *, has_features: bool, is_number: bool = False) -> str:
    """What columns in these roles are good for; "" when something is still missing."""
    held = {role for role, name in roles.items() if name}
    if "messages" in held or {"prompt", "completion"} <= held:
        return "chat"
    if {"user", "item"} <= held:
        return "recommendation"
    if "label" in held and "text" in held:
        return "classification"
    if "label" in held and has_features:
        return "regression" if is_number else "classification"
    return ""
