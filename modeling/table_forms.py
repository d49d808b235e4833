"""The part of a new run's form about a table: what each column is used for, its bounds or its categories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from django.utils.translation import gettext as _

from modeling.actions.declared_columns import known_column
from modeling.actions.specs import JobSpec
from modeling.core.column_roles import FEATURE, SENSITIVE, is_identifier
from modeling.core.columns import normal
from modeling.core.heads import TABULAR
from modeling.models import Dataset, DatasetVersion
from modeling.packs import PACKS
from modeling.packs.tables import BANDS
from saas.lib.errors import Refusal

LEARN, COMPARE, LEAVE = "learn", "compare", "leave"
USES = (LEARN, COMPARE, LEAVE)
DECLARED = {FEATURE: LEARN, SENSITIVE: COMPARE}
SHOWN = ("number", "category")  # kinds that can be learnt from without further words
MOST_COLUMNS = 200


@dataclass(frozen=True)
class Column:
    """One row of the page's table; `number` prefixes its fields' names."""

    number: int
    name: str
    kind: str
    use: str
    low: str
    high: str
    categories: str
    can_compare: bool
    bands: str  # what a number is cut into when it is compared

    @property
    def is_compared_number(self) -> bool:
        """Whether bands are shown in place of bounds."""
        return bool(self.bands) and self.use == COMPARE

    @property
    def is_number(self) -> bool:
        """Whether it has bounds rather than categories."""
        return self.kind == "number"


@dataclass(frozen=True)
class TablePanel:
    """The whole part of the page: the answer's column and all others."""

    dataset: str
    target: str
    targets: tuple[str, ...]
    is_regression: bool
    low: str
    high: str
    columns: tuple[Column, ...]

    @property
    def task(self) -> str:
        """classification or regression."""
        return "regression" if self.is_regression else "classification"

    def completed(self, spec: JobSpec) -> JobSpec:
        """The spec with what the page declares; raises Refusal for bounds that are no numbers."""
        learnt = [one for one in self.columns if one.use == LEARN]
        bounds = {"low": _bound(self.target, self.low), "high": _bound(self.target, self.high)}
        return replace(
            spec,
            model=TABULAR,
            task=self.task,
            columns={**spec.columns, "label": self.target},
            features=tuple(_feature(one) for one in learnt),
            target={name: bound for name, bound in bounds.items() if bound is not None}
            if self.is_regression
            else None,
            protected=tuple(one.name for one in self.columns if one.use == COMPARE),
        )


def table_panel(version: DatasetVersion, sent: Mapping[str, str]) -> TablePanel:
    """What the page shows: what was sent for this dataset, with the vertical's knowledge where nothing was."""
    dataset = version.dataset
    if sent.get("columns_of") != dataset.public_id:
        sent = {}  # fields of another dataset mean nothing here
    facts = [one for one in version.schema.get("columns", []) if one.get("kind") in SHOWN][:MOST_COLUMNS]
    kinds = {str(one["name"]): str(one["kind"]) for one in facts}
    guessed = dataset.columns.get("label", "")
    target = sent.get("target", "") if sent.get("target", "") in kinds else guessed
    usual = "regression" if dataset.task == "regression" else "classification"
    task = sent.get("answer") or usual
    known = known_column(dataset, target)
    return TablePanel(
        dataset=dataset.public_id,
        target=target,
        targets=tuple(kinds),
        is_regression=task == "regression",
        low=sent.get("target_low") or (_text(known.low) if known else ""),
        high=sent.get("target_high") or (_text(known.high) if known else ""),
        columns=tuple(
            _column(number, name, kind, version, sent)
            for number, (name, kind) in enumerate(kinds.items())
            if name not in (target, dataset.unit_column)
        ),
    )


def _column(number: int, name: str, kind: str, version: DatasetVersion, sent: Mapping[str, str]) -> Column:
    known = known_column(version.dataset, name)
    bands = BANDS.get(normal(name), ()) if kind == "number" else ()
    if known and known.kind == "category":
        bands = known.categories if kind == "number" else ()
        kind = "number" if bands and version.dataset.uses.get(name) == SENSITIVE else "category"
    is_known_number = known is not None and known.kind == kind == "number"
    can_compare = kind == "category" or bool(bands)
    use = _usual(version.dataset, name, can_compare=can_compare, can_learn=bool(known) or kind == "category")
    asked = sent.get(f"c{number}_use", use)
    return Column(
        number=number,
        name=name,
        kind=kind,
        use=asked if asked in USES and (asked != COMPARE or can_compare) else use,
        low=sent.get(f"c{number}_low") or (_text(known.low) if known and is_known_number else ""),
        high=sent.get(f"c{number}_high") or (_text(known.high) if known and is_known_number else ""),
        categories=sent.get(f"c{number}_categories", ", ".join(known.categories) if known else ""),
        can_compare=can_compare,
        bands=", ".join(bands) if kind == "number" else "",
    )


def _usual(dataset: Dataset, name: str, *, can_compare: bool, can_learn: bool) -> str:
    """What a column is used for when the page says nothing: as declared, else as its name and kind suggest."""
    if dataset.declared_at is not None:
        return DECLARED.get(dataset.uses.get(name, ""), LEAVE)
    if normal(name) in PACKS[dataset.pack].protected and can_compare:
        return COMPARE
    return LEARN if can_learn and not is_identifier(name) else LEAVE


def _text(value: float) -> str:
    return f"{value:g}" if abs(value) < 1e6 else str(value)


def _feature(column: Column) -> dict[str, Any]:
    """A feature of the spec; an empty list of categories declares the values in the file public."""
    if not column.is_number:
        names = [name.strip() for name in column.categories.split(",") if name.strip()]
        return {"name": column.name, "kind": "category", **({"categories": names} if names else {})}
    bounds = {"low": _bound(column.name, column.low), "high": _bound(column.name, column.high)}
    return {"name": column.name, "kind": "number"} | {
        name: bound for name, bound in bounds.items() if bound is not None
    }


def _bound(name: str, text: str) -> float | None:
    """A bound as written, with a comma or a point; None when empty."""
    text = text.strip().replace(",", ".")
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        raise Refusal(
            _("The bounds of “%(name)s” must be numbers.") % {"name": name},
            param="features",
            code="invalid_features",
        ) from None
