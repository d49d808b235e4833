"""What cannot be in a dataset's schema: a sentence for every column that is used as something it cannot be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

from modeling.core.column_roles import FEATURE, LEARNABLE, SENSITIVE
from modeling.core.columns import normal
from modeling.core.table_features import LARGEST_BOUND
from modeling.models import Dataset, DatasetVersion
from modeling.packs import PACKS
from modeling.packs.tables import BANDS
from saas.lib.errors import Conflict, Refusal

MOST_VALUES = 1_000
LONGEST_VALUE = 200
CATALOGUE_ROLES = ("catalogue_id", "catalogue_text", "unit")
Declared = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Problem:
    """One thing to correct: the column whose field it stands beside ("" for the whole), and a sentence."""

    column: str
    param: str
    code: str
    sentence: str

    def refusal(self) -> Refusal:
        """The same for a caller of the API."""
        kind = Conflict if self.code == "unit_fixed" else Refusal
        return kind(self.sentence, param=self.param, code=self.code)


def problems(
    dataset: Dataset,
    version: DatasetVersion,
    roles: Mapping[str, str],
    uses: Mapping[str, str],
    declared: Declared,
) -> list[Problem]:
    """Everything that stands in the way, the unit first; empty when the schema can be kept."""
    kinds = {str(one["name"]): str(one.get("kind", "")) for one in version.schema.get("columns", [])}
    found = [*_unknown(kinds, roles, uses, declared)]
    if found:
        return found
    found += _unit(dataset, roles)
    found += _doubled(roles, uses)
    found += [one for role, name in roles.items() if (one := _misfit(role, name, kinds.get(name, "")))]
    found += _conversation(dataset, roles)
    found += [one for name, each in declared.items() if (one := _wrong(name, each, kinds[name]))]
    for name, use in uses.items():
        if use == FEATURE and (one := _feature(dataset, name, kinds[name], declared)):
            found.append(one)
        if use == SENSITIVE and (one := _sensitive(dataset, name, kinds[name], declared)):
            found.append(one)
    return found


def _unknown(
    kinds: Mapping[str, str], roles: Mapping[str, str], uses: Mapping[str, str], declared: Declared
) -> list[Problem]:
    named = [(f"columns.{role}", name) for role, name in roles.items() if name]
    named += [(f"columns.{use}", name) for name, use in uses.items()]
    named += [("declared", name) for name in declared]
    why = _("The file has no such column: write the name as it stands in the header.")
    return [Problem(name, param, "column_not_found", why) for param, name in named if name not in kinds]


def _unit(dataset: Dataset, roles: Mapping[str, str]) -> list[Problem]:
    if dataset.is_catalogue:
        return []
    words = {"person": _(PACKS[dataset.pack].wording.get("person", "person"))}
    if "unit" not in roles:
        why = _(
            "Say whose record a row is: choose the column that names the %(person)s, or say that each row is one"
            " %(person)s."
        )
        return [Problem("", "columns.unit", "unit_required", why % words)]
    if dataset.unit_fixed and roles["unit"] != dataset.unit_column:
        why = _("Whose record a row is was fixed by this dataset's first private job, and cannot change.")
        return [Problem(roles["unit"], "columns.unit", "unit_fixed", why)]
    if roles.get("user") and roles.get("item") and roles["unit"] != roles["user"]:
        why = _("A recommender protects the person in the user column: do not choose another unit.")
        return [Problem(roles["unit"], "columns.unit", "unit_is_user", why)]
    return []


def _doubled(roles: Mapping[str, str], uses: Mapping[str, str]) -> list[Problem]:
    """Columns in two roles; only a user is a unit as well."""
    seen: dict[str, str] = {}
    found = []
    for role, name in [*roles.items(), *((use, name) for name, use in uses.items())]:
        if not name:
            continue
        if name in seen and {role, seen[name]} != {"unit", "user"}:
            why = _("This column is named in two roles. Choose one.")
            found.append(Problem(name, f"columns.{role}", "two_roles", why))
        seen[name] = role
    return found


def _misfit(role: str, name: str, kind: str) -> Problem | None:
    """A role that the kind of the column cannot fill."""
    if not name:
        return None
    if kind == "empty":
        why = _("This column is empty.")
    elif role == "messages" and kind != "list":
        why = _("A conversation is a list of turns: upload JSON lines in OpenAI’s form.")
    elif role == "label" and kind == "object":
        why = _("A label is a word, a number or a list of words.")
    elif role not in ("messages", "label") and kind in ("list", "object"):
        why = _("This column holds lists or objects, and something else is needed here.")
    else:
        return None
    return Problem(name, f"columns.{role}", "invalid_column", why)


def _conversation(dataset: Dataset, roles: Mapping[str, str]) -> list[Problem]:
    def problem(role: str, code: str, why: str) -> Problem:
        return Problem(roles[role], f"columns.{role}", code, why)

    found = []
    has = {role for role, name in roles.items() if name}
    if "messages" in has and has & {"prompt", "completion"}:
        found.append(
            problem(
                "messages", "two_forms", _("Name either the conversation, or a prompt and its completion.")
            )
        )
    if has & {"prompt", "completion"} == {"prompt"}:
        found.append(
            problem("prompt", "column_required", _("Name the completion, too: what the model shall answer."))
        )
    if has & {"prompt", "completion"} == {"completion"}:
        found.append(problem("completion", "column_required", _("Name the prompt, too: what a person asks.")))
    if dataset.is_catalogue and (wrong := has - set(CATALOGUE_ROLES)):
        why = _("A catalogue has an id and a text only: it holds things, not people’s records.")
        found.append(problem(min(wrong), "not_for_catalogues", why))
    if not dataset.is_catalogue and (wrong := has & {"catalogue_id", "catalogue_text"}):
        why = _("Only a catalogue has this: upload it with that purpose.")
        found.append(problem(min(wrong), "only_for_catalogues", why))
    return found


def _wrong(name: str, declared: Mapping[str, Any], kind: str) -> Problem | None:
    """A declaration that is none."""

    def problem(why: str) -> Problem:
        return Problem(name, "declared", "invalid_declaration", why)

    if kind not in ("number", "category", "text", "list") and kind != "empty":
        return problem(_("Bounds and categories are for numbers and categories."))
    if declared.get("kind") == "number":
        low, high = declared.get("low"), declared.get("high")
        if not _is_number(low) or not _is_number(high):
            return problem(_("Write both bounds as numbers, such as 0 and 120."))
        if not -LARGEST_BOUND <= float(low) < float(high) <= LARGEST_BOUND:  # type: ignore[arg-type]
            return problem(_("The lower bound must be below the higher one."))
        return None
    values = declared.get("values")
    if not isinstance(values, list) or not values or not all(isinstance(one, str) for one in values):
        return problem(_("List the categories, one on each line."))
    if len(set(values)) != len(values) or not all(values):
        return problem(_("Each category stands in the list once, and none is empty."))
    if len(values) > MOST_VALUES or any(len(one) > LONGEST_VALUE for one in values):
        return problem(_("At most 1,000 categories of at most 200 characters each."))
    return None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _feature(dataset: Dataset, name: str, kind: str, declared: Declared) -> Problem | None:
    """A column to learn from without what has to be known about it."""
    if kind not in LEARNABLE:
        why = _(
            "A model on columns learns from numbers and categories. Leave this one out, or name it as the text."
        )
        return Problem(name, "columns.feature", "invalid_column", why)
    known = PACKS[dataset.pack].known_column(normal(name))
    if name in declared or (known and (known.kind == "category" or kind == "number")):
        return None
    if kind == "number":
        why = _(
            "Write the lowest and the highest value that you know in general, not from these rows, or leave it out."
        )
        return Problem(name, "declared", "bounds_required", why)
    why = _("List the categories that you know in general, not from these rows, or leave the column out.")
    return Problem(name, "declared", "categories_required", why)


def _sensitive(dataset: Dataset, name: str, kind: str, declared: Declared) -> Problem | None:
    """An attribute to compare by whose groups are not known."""
    known = PACKS[dataset.pack].known_column(normal(name))
    if normal(name) in BANDS or (known and known.kind == "category"):
        return None
    if declared.get(name, {}).get("kind") == "category":
        return None
    if kind == "number":
        why = _("List the groups to compare, one on each line, such as: under 25, 25-64, 65+.")
    else:
        why = _("List the groups to compare, one on each line.")
    return Problem(name, "declared", "categories_required", why)
