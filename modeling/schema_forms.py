"""The page “What is what”: a row for each column with its guess and the reason, and what a form of it declares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from django.utils.translation import gettext as _

from modeling.actions.dataset_schema import Schema, completed, present
from modeling.actions.declared_columns import proposals
from modeling.actions.schema_checks import Problem, problems
from modeling.core.column_roles import FEATURE, LEAVE, SENSITIVE, USES
from modeling.core.columns import normal
from modeling.models import Dataset, DatasetVersion
from modeling.packs import PACKS
from modeling.packs.tables import BANDS
from modeling.queries.words import role_words

NUMBER, CATEGORY = "number", "category"
_ANY = (
    "label",
    "text",
    FEATURE,
    "user",
    "item",
    "timestamp",
    "unit",
    SENSITIVE,
    "prompt",
    "completion",
    LEAVE,
)
_TEXTS = ("label", "text", "user", "item", "timestamp", "unit", "prompt", "completion", LEAVE)
_OF_KIND = {
    "list": ("messages", "label", LEAVE),
    "object": (LEAVE,),
    "empty": (LEAVE,),
    "text": _TEXTS,
    "date": ("timestamp", "label", "user", "unit", LEAVE),
    "number": ("label", FEATURE, "user", "item", "timestamp", "unit", SENSITIVE, LEAVE),
}
_OF_CATALOGUES = ("catalogue_id", "catalogue_text", LEAVE)
_CLAIMED = (FEATURE, SENSITIVE, "label")  # roles for which bounds or categories mean something


@dataclass(frozen=True)
class Row:
    """One column on the page; `number` prefixes its fields' names."""

    number: int
    name: str
    kind: str
    role: str
    roles: tuple[tuple[str, str], ...]
    guess: str
    reason: str
    low: str
    high: str
    values: str
    is_offered: bool  # bounds or categories come from the vertical
    bands: str  # groups known for a number that is compared
    is_fixed: bool = False
    error: str = ""

    @property
    def is_as_guessed(self) -> bool:
        """Whether the role is the guessed one."""
        return dict(self.roles).get(self.role) == self.guess

    @property
    def is_number(self) -> bool:
        """Whether it has bounds."""
        return self.kind == NUMBER

    @property
    def can_declare(self) -> bool:
        """Whether bounds or categories make sense."""
        return self.kind in (NUMBER, CATEGORY)


@dataclass(frozen=True)
class Panel:
    """The whole page."""

    rows: tuple[Row, ...]
    each_row: bool
    unit_error: str = ""
    changes_unit: bool = False

    @property
    def errors(self) -> int:
        """How many fields have to be corrected."""
        return sum(bool(row.error) for row in self.rows) + bool(self.unit_error)


def shown(dataset: Dataset, version: DatasetVersion) -> Panel:
    """The page as declared, or as guessed."""
    return panel_of(dataset, version, present(dataset, version))


def panel_of(dataset: Dataset, version: DatasetVersion, schema: Schema) -> Panel:
    """The page of a schema, with the vertical's knowledge where nothing was declared."""
    by_column = {
        **schema.uses,
        **{name: role for role, name in schema.roles.items() if name and role != "unit"},
    }
    unit = schema.roles.get("unit")
    if unit:
        by_column.setdefault(unit, "unit")
    guesses = {one.column: one for one in proposals(dataset, version)}
    rows = []
    for number, column in enumerate(version.schema.get("columns", [])):
        name, kind = str(column["name"]), str(column.get("kind", ""))
        role = by_column.get(name, LEAVE)
        guess = guesses.get(name)
        rows.append(
            _row(
                dataset, number, name, kind, role, schema.declared.get(name),
                guess=(guess.role, guess.reason) if guess else ("", ""),
            )
        )  # fmt: skip
    return Panel(tuple(rows), each_row=unit == "")


def _row(
    dataset: Dataset,
    number: int,
    name: str,
    kind: str,
    role: str,
    declared: Mapping[str, Any] | None,
    *,
    guess: tuple[str, str],
) -> Row:
    known = PACKS[dataset.pack].known_column(normal(name))
    if known is not None and known.kind == CATEGORY and kind == "text":
        kind = CATEGORY
    is_offered = known is not None and known.kind == kind and declared is None
    low = high = values = ""
    if declared is not None and declared["kind"] == NUMBER:
        low, high = _text(declared["low"]), _text(declared["high"])
    elif declared is not None:
        values = "\n".join(declared["values"])
    elif is_offered and known is not None and role != "label":
        low, high = (_text(known.low), _text(known.high)) if kind == NUMBER else ("", "")
        values = "\n".join(known.categories)
    roles = _OF_CATALOGUES if dataset.is_catalogue else _OF_KIND.get(kind, _ANY)
    is_fixed = dataset.unit_fixed and bool(name) and name == dataset.unit_column
    return Row(
        number=number,
        name=name,
        kind=kind,
        role=role,
        roles=tuple((one, role_words(one)) for one in dict.fromkeys((*roles, role))),
        guess=role_words(guess[0]) if guess[0] else "",
        reason=guess[1],
        low=low,
        high=high,
        values=values,
        is_offered=is_offered,
        bands=", ".join(BANDS.get(normal(name), ())) if kind == NUMBER else "",
        is_fixed=is_fixed,
    )


def _text(value: float) -> str:
    return f"{value:g}" if abs(value) < 1e6 else str(value)


def sent(dataset: Dataset, version: DatasetVersion, form: Mapping[str, str]) -> tuple[Panel, Schema]:
    """The page as it was sent, with a sentence beside each field that cannot be, and the schema it declares."""
    page = shown(dataset, version)
    rows, declared, found = [], {}, []
    for shown_row in page.rows:
        row, claim, problem = _sent_row(shown_row, form)
        rows.append(row)
        if claim is not None:
            declared[row.name] = claim
        if problem is not None:
            found.append(problem)
    each_row = form.get("each_row") == "1"
    schema = completed(dataset, Schema(_roles(rows, each_row=each_row), _uses(rows), declared))
    found += problems(dataset, version, schema.roles, schema.uses, schema.declared)
    found += _twice(rows)
    unit_error = next((one.sentence for one in found if one.column == "" or one.code == "unit_fixed"), "")
    if each_row and any(row.role == "unit" for row in rows):
        unit_error = _(
            "A column is named as the unit, and each row is said to be one person. Choose one of them."
        )
    errors: dict[str, str] = {}
    for one in found:
        errors.setdefault(one.column, one.sentence)
    panel = Panel(
        rows=tuple(replace(row, error=errors.get(row.name, "") if row.name else "") for row in rows),
        each_row=each_row,
        unit_error=unit_error,
        changes_unit=not unit_error and schema.roles.get("unit", "") != dataset.unit_column,
    )
    return panel, schema


def _roles(rows: list[Row], *, each_row: bool) -> dict[str, str]:
    roles = {row.role: row.name for row in rows if row.role not in USES}
    if each_row and "unit" not in roles and not (roles.get("user") and roles.get("item")):
        roles["unit"] = ""
    return roles


def _uses(rows: list[Row]) -> dict[str, str]:
    return {row.name: row.role for row in rows if row.role in USES}


def _twice(rows: list[Row]) -> list[Problem]:
    """Roles that only one column can have, given to several."""
    seen: set[str] = set()
    found = []
    for row in rows:
        if row.role in seen:
            why = _("Another column is %(role)s already. Choose something else for one of them.")
            found.append(Problem(row.name, "", "one_column_only", why % {"role": role_words(row.role)}))
        if row.role not in USES:
            seen.add(row.role)
    return found


def _sent_row(row: Row, form: Mapping[str, str]) -> tuple[Row, dict[str, Any] | None, Problem | None]:
    """A row as sent, what it declares, and what cannot be read of it."""
    prefix = f"c{row.number}_"
    role = form.get(prefix + "role", row.role)
    role = row.role if row.is_fixed or role not in dict(row.roles) else role
    row = replace(
        row,
        role=role,
        low=form.get(prefix + "low", row.low).strip(),
        high=form.get(prefix + "high", row.high).strip(),
        values=form.get(prefix + "values", row.values),
    )
    if role not in _CLAIMED or not row.can_declare:
        return row, None, None
    names = list_of(row.values)
    if not row.is_number or role == SENSITIVE:
        return row, {"kind": CATEGORY, "values": names} if names and not row.bands else None, None
    if not row.low and not row.high:
        return row, None, None
    low, high = _number(row.low), _number(row.high)
    if low is None or high is None:
        why = _("Write both bounds as numbers, such as 0 and 120.")
        return row, None, Problem(row.name, "declared", "invalid_declaration", why)
    return row, {"kind": NUMBER, "low": low, "high": high}, None


def list_of(text: str) -> list[str]:
    """Pasted categories: one on each line; in a single line, between commas or semicolons. Each once."""
    lines = text.strip().splitlines()
    if len(lines) == 1:
        lines = lines[0].replace(";", ",").split(",")
    return list(dict.fromkeys(line.strip() for line in lines if line.strip()))


def _number(text: str) -> float | None:
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return None
