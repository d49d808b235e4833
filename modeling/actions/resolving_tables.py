"""Tables: which columns are learnt from, compared and predicted; bounds and categories are declared, not measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

from modeling.actions.datasets import distinct_labels
from modeling.actions.declared_columns import from_declared, known_column, used_as
from modeling.actions.specs import JobSpec
from modeling.core.column_roles import FEATURE, LEARNABLE, SENSITIVE, is_identifier
from modeling.core.columns import normal
from modeling.core.heads import TABULAR
from modeling.core.table_features import check_bounds
from modeling.core.types import CannotTrain, Feature
from modeling.models import DatasetVersion
from modeling.packs import PACKS
from modeling.packs.tables import BANDS, KnownColumn
from saas.lib.errors import Refusal

TASKS = ("classification", "regression")
LONGEST_NAME = 200  # of a category or label, also one found in the file: the API has the same bound


@dataclass(frozen=True)
class Table:
    """What a job on a table declares: public, and on the card."""

    features: tuple[Feature, ...]
    target: Feature | None
    protected: tuple[Feature, ...]


def is_table(spec: JobSpec, version: DatasetVersion) -> bool:
    """Whether the job learns from columns: asked for, or the file has answers and no text to read."""
    if spec.model:
        return spec.model == TABULAR
    if spec.features or spec.target or (spec.task or version.dataset.task) == "regression":
        return True
    if spec.task not in ("", "classification") or version.dataset.task not in ("", *TASKS):
        return False
    columns = {role for role, name in {**version.dataset.columns, **spec.columns}.items() if name}
    return "label" in columns and not columns & {"text", "messages", "prompt", "user"}


def table_of(spec: JobSpec, version: DatasetVersion, columns: Mapping[str, str], unit: str) -> Table:
    """Features, target and protected attributes; raises Refusal naming the column that lacks a declaration."""
    known = _Known(version)
    taken = {columns["label"], *([unit] if unit else [])}
    _require_free(spec, taken, used_as(version.dataset, SENSITIVE))
    protected = _protected(spec, known, taken)
    compared = {feature.name for feature in protected}
    if spec.features:
        features = tuple(_declared(one, known, param="features") for one in spec.features)
    else:
        wanted = [name for name in _learnable(known) if name not in taken | compared]
        features = tuple(_declared({"name": name}, known, param="features") for name in wanted)
    return Table(features, _target(spec, columns["label"], known), protected)


def _learnable(known: _Known) -> list[str]:
    """The columns declared as features, in the order of the file; where nobody declared any, all that can be."""
    dataset = known.version.dataset
    if dataset.declared_at is not None:
        return [name for name in known.kinds if name in used_as(dataset, FEATURE)]
    return [name for name, kind in known.kinds.items() if kind in LEARNABLE and not is_identifier(name)]


def _require_free(spec: JobSpec, taken: set[str], kept_out: frozenset[str]) -> None:
    """Refuse the answer and the unit as something else: the groups of a unit column would be the people's names."""
    for one in spec.features:
        if str(one["name"]) in taken | kept_out:
            why = _("it is the answer, the unit or a sensitive attribute, not something to learn from")
            raise _refused(str(one["name"]), why, "features")
    for name in spec.protected:
        if name in taken:
            raise _refused(name, _("it is the answer or the unit, not something to compare by"), "protected")


class _Known:
    """What is known about a version's columns without looking at any row."""

    def __init__(self, version: DatasetVersion) -> None:
        self.version = version
        self.pack = PACKS[version.dataset.pack]
        self.kinds = {one["name"]: str(one.get("kind", "")) for one in version.schema.get("columns", [])}

    def column(self, name: str) -> KnownColumn | None:
        """What was declared for the dataset; else the vertical's knowledge, if it fits what the file holds."""
        found = known_column(self.version.dataset, name)
        is_number = self.kinds.get(name) == "number"
        return found if found and (is_number or found.kind == "category") else None


def _declared(asked: Mapping[str, Any], known: _Known, *, param: str) -> Feature:
    """A column as asked for, completed from the vertical's knowledge; raises Refusal where a declaration is missing."""
    name = str(asked["name"])
    if name not in known.kinds:
        raise Refusal(
            _("The file has no column “%(name)s”.") % {"name": name}, param=param, code="column_not_found"
        )
    found = known.column(name)
    kind = asked.get("kind") or ("category" if "categories" in asked else "")
    kind = kind or ("number" if "low" in asked or "high" in asked else "")
    kind = kind or (found.kind if found else known.kinds[name])
    if kind == "number":
        low = asked.get("low", found.low if found and found.kind == "number" else None)
        high = asked.get("high", found.high if found and found.kind == "number" else None)
        if low is None or high is None:
            raise _undeclared_number(name, param)
        return Feature(name, "number", low=float(low), high=float(high))
    if kind != "category":
        raise _refused(name, _("it holds neither numbers nor categories"), param)
    categories = asked.get("categories") or (found.categories if found and found.kind == "category" else ())
    if not categories and asked.get("kind") == "category":
        # Naming a column as a category declares its values public, as for label names; the card says so.
        categories = _values_of(known, name, param)
    if not categories:
        raise _undeclared_category(name, param)
    if any(len(str(one)) > LONGEST_NAME for one in categories):
        raise _refused(name, _("a category has more than 200 characters"), param)
    return Feature(name, "category", categories=tuple(str(one) for one in categories))


def _values_of(known: _Known, name: str, param: str) -> list[str]:
    """The different values of a column; raises Refusal naming it when they are too many to be categories."""
    try:
        return distinct_labels(known.version, name)
    except Refusal as refusal:
        raise _refused(name, _("it has too many different values to be categories"), param) from refusal


def _protected(spec: JobSpec, known: _Known, taken: set[str]) -> tuple[Feature, ...]:
    """The named attributes, else those declared sensitive, else those that the vertical always compares."""
    learnt = {str(one["name"]) for one in spec.features}
    dataset = known.version.dataset
    sensitive = used_as(dataset, SENSITIVE)
    names = spec.protected or tuple(
        name
        for name in known.kinds
        if (name in sensitive if dataset.declared_at else normal(name) in known.pack.protected)
        and name not in taken | learnt
        and _comparable(name, known)
    )
    return tuple(_attribute(name, known) for name in dict.fromkeys(names))


def _comparable(name: str, known: _Known) -> bool:
    """Whether groups are known without asking the tenant."""
    found = known.column(name)
    is_banded = known.kinds[name] == "number" and normal(name) in BANDS
    return is_banded or bool(found and found.kind == "category")


def _attribute(name: str, known: _Known) -> Feature:
    """Its groups: as declared, by public bands where it is a number, or as the vertical knows them."""
    declared = known.version.dataset.declared.get(name)
    if declared and declared["kind"] == "category":
        return Feature(name, "category", categories=from_declared(declared).categories)
    if known.kinds.get(name) == "number" and normal(name) in BANDS:
        return Feature(name, "category", categories=BANDS[normal(name)])
    return _declared({"name": name, "kind": "category"}, known, param="protected")


def _target(spec: JobSpec, name: str, known: _Known) -> Feature | None:
    """The number to predict with its declared bounds; None for a classification."""
    if spec.task != "regression":
        return None
    asked = {"name": name, "kind": "number", **(spec.target or {})}
    found = _declared(asked, known, param="target")
    try:
        check_bounds(found)
    except CannotTrain as error:
        raise Refusal(error.message, param="target", code=error.code) from None
    return found


def _refused(name: str, why: str, param: str) -> Refusal:
    words = {"name": name, "why": why}
    return Refusal(
        _("The column “%(name)s” cannot be used: %(why)s.") % words, param=param, code="invalid_features"
    )


def _undeclared_number(name: str, param: str) -> Refusal:
    sentence = _(
        "“%(name)s” is a number without declared bounds. Name it among the features with low and high: bounds come"
        " from what you know in general, not from these data."
    )
    return Refusal(sentence % {"name": name}, param=param, code="bounds_required")


def _undeclared_category(name: str, param: str) -> Refusal:
    sentence = _(
        "“%(name)s” is a category without declared values. Name it among the features with its categories, or with"
        " kind category to declare the values in the file public."
    )
    return Refusal(sentence % {"name": name}, param=param, code="categories_required")
