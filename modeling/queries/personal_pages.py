"""What the pages say about personal data: words for kinds and actions, the policy's table, findings by column."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from modeling.actions.personal_policy import InForce
from modeling.core.personal_data import ALL_KINDS
from modeling.core.personal_policy import ACTIONS
from modeling.core.personal_rows import REPORTED_ROWS
from modeling.models import DatasetVersion
from modeling.packs.personal import policy_of
from tenants.models import Tenant

KINDS: Mapping[str, tuple[str | Promise, str | Promise]] = {
    "name": (
        gettext_lazy("Names of people"),
        gettext_lazy("by lists of names, titles and the words around them"),
    ),
    "date_of_birth": (gettext_lazy("Dates of birth"), gettext_lazy("dates that are called a birth’s")),
    "date": (gettext_lazy("Other dates"), gettext_lazy("a day with its month")),
    "mrn": (gettext_lazy("Record numbers"), gettext_lazy("of patients, stays, insurances and members")),
    "national_id": (
        gettext_lazy("Ids of states"),
        gettext_lazy("social security, tax, passports, licences; some 25 countries"),
    ),
    "card": (gettext_lazy("Payment cards"), gettext_lazy("with a right check digit")),
    "iban": (gettext_lazy("IBANs"), gettext_lazy("with right check digits")),
    "account": (gettext_lazy("Account numbers"), gettext_lazy("numbers that are called an account’s")),
    "phone": (gettext_lazy("Phone numbers"), gettext_lazy("in a country’s plan, or called a phone’s")),
    "email": (gettext_lazy("E-mail addresses"), ""),
    "address": (gettext_lazy("Postal addresses"), gettext_lazy("street and number, post box")),
    "ip": (gettext_lazy("IP addresses"), ""),
    "url": (gettext_lazy("Addresses with a login"), gettext_lazy("a name or password inside of a URL")),
}
ACTION_WORDS: Mapping[str, str | Promise] = {
    "off": gettext_lazy("Not looked for"),
    "report": gettext_lazy("Counted"),
    "mask": gettext_lazy("Masked"),
    "block": gettext_lazy("File refused"),
}


@dataclass(frozen=True)
class KindRow:
    """One kind in the policy's table: what is done now, and what the vertical does."""

    kind: str
    label: str
    note: str
    action: str
    action_words: str
    usual: str
    choices: list[tuple[str, str]]


@dataclass(frozen=True)
class FoundRow:
    """How many of one kind were found in one column, and what was done."""

    column: str
    kind: str
    count: int
    done: str


@dataclass(frozen=True)
class Findings:
    """What inspection found in a version: rows of the table, columns that were looked at, warnings in words."""

    rows: list[FoundRow]
    columns: list[str]
    rows_masked: int
    rows_reported: int
    is_partial: bool
    warnings: list[str] = field(default_factory=list)


def kind_words(kind: str) -> str:
    """A kind as pages call it."""
    return str(KINDS[kind][0]) if kind in KINDS else kind


def policy_rows(tenant: Tenant, held: InForce) -> list[KindRow]:
    """The policy's table, names first."""
    usual = policy_of(tenant.pack)
    return [
        KindRow(
            kind=kind,
            label=str(label),
            note=str(note),
            action=held.policy.action(kind),
            action_words=str(ACTION_WORDS[held.policy.action(kind)]),
            usual=str(ACTION_WORDS[usual.get(kind, "off")]),
            choices=[(action, str(ACTION_WORDS[action])) for action in ACTIONS],
        )
        for kind, (label, note) in KINDS.items()
        if kind in ALL_KINDS
    ]


def findings_of(version: DatasetVersion) -> Findings | None:
    """What the dataset's page shows; None where nothing was looked for."""
    kept: dict[str, Any] = version.personal_data
    if not kept or not any(action != "off" for action in kept["policy"].values()):
        return None
    rows = [
        FoundRow(column, kind_words(kind), int(count), str(ACTION_WORDS[kept["policy"].get(kind, "off")]))
        for column, kinds in kept["found"].items()
        for kind, count in sorted(kinds.items(), key=lambda pair: -pair[1])
    ]
    is_partial = version.rows > REPORTED_ROWS and "report" in kept["policy"].values()
    return Findings(
        rows, list(kept["columns"]), int(kept["rows_masked"]), int(kept["rows_reported"]), is_partial,
        [_warning(one) for one in kept["warnings"]],
    )  # fmt: skip


def _warning(one: Mapping[str, str]) -> str:
    return _(
        "The column %(column)s seems to hold %(kind)s. It says whose or what a row is, so it is never masked:"
        " replace it"
        " by a number of your own before you upload, if it should not be kept."
    ) % {"column": one["column"], "kind": kind_words(one["kind"]).lower()}
