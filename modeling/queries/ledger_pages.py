"""What the pages show of the privacy ledger: one card per account, and the entries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from modeling.core import accounting
from modeling.core.types import Mechanism
from modeling.models import Dataset, PrivacyAccount, PrivacyEntry
from modeling.queries import words
from modeling.queries.budget_changes import changes
from modeling.queries.budget_pictures import Picture, picture_of
from modeling.queries.privacy import (
    Spending,
    alert_words,
    entries_of,
    last_mechanisms,
    months_left,
    root_of,
    spending_by_job,
    spending_of_jobs,
)
from tenants.models import Tenant

MOST_MONTHS = 120
PILLS = {
    "reserved": "reserved",
    "charged": "",
    "settled": "ready",
    "released": "ready",
    "failed": "failed",
    "unbounded": "failed",
}


@dataclass(frozen=True)
class AccountCard:
    """One account in the filter's own numbers. `spent` + `reserved` = `used`; `left` = `lifetime` - `used`."""

    id: str
    title: str
    unit: str
    unit_words: str
    spent: float
    reserved: float
    used: float
    left: float
    lifetime: float
    delta: float
    no_bound: bool
    jobs: int
    runs_left: int | None
    spending: Spending
    changes: list[dict[str, Any]]
    picture: Picture
    months_left: float | None

    @property
    def alert(self) -> str:
        """A sentence once 50, 80 or 95 % of the budget is used."""
        return "" if self.no_bound else alert_words(self.used, self.lifetime)

    @property
    def forecast(self) -> str:
        """How long the budget lasts at the recent pace, in words; nothing without two weeks of history."""
        if self.months_left is None:
            return ""
        if self.months_left < 1:
            return _("At the pace of the last weeks it lasts less than a month.")
        months = min(int(self.months_left), MOST_MONTHS)
        return ngettext(
            "At the pace of the last weeks it lasts about %(n)s more month.",
            "At the pace of the last weeks it lasts about %(n)s more months.",
            months,
        ) % {"n": months}

    @property
    def history(self) -> float:
        """PLD over the history, as if all runs had been chosen in advance."""
        return self.spending.history()

    @property
    def history_replace_one(self) -> float:
        """The same under replace-one."""
        return self.spending.history("replace_one")


@dataclass(frozen=True)
class EntryRow:
    """One line of the ledger as the page prints it."""

    seq: int
    pill: str
    kind_words: str
    job: str
    mechanism_words: str
    epsilon: float | None
    entry_hash: str
    at: datetime


def account_cards(tenant: Tenant) -> list[AccountCard]:
    """One card per live account of a tenant, the newest first."""
    live = PrivacyAccount.objects.of(tenant).filter(merged_into=None).order_by("-pk")
    return [account_card(tenant, account) for account in live]


def account_card(tenant: Tenant, account: PrivacyAccount) -> AccountCard:
    """The card of the account, or of the one it was merged into."""
    account = root_of(tenant, account)
    runs = spending_by_job(tenant, account)
    spending = spending_of_jobs(account, runs)
    spent = replace(spending, mechanisms=_charged(tenant, account)).used
    like = last_mechanisms(tenant, account)
    names = Dataset.objects.of(tenant).filter(account=account).order_by("pk").values_list("name", flat=True)
    return AccountCard(
        id=str(account.pk),
        title=" + ".join(names) or _("Data that was deleted"),
        unit=words.person(tenant),
        unit_words=words.unit_words(tenant, "" if account.unit_label == "row" else account.unit_label),
        spent=min(spent, spending.used),
        reserved=max(0.0, spending.used - spent),
        used=spending.used,
        left=spending.left,
        lifetime=account.lifetime_epsilon,
        delta=account.delta,
        no_bound=account.no_bound,
        jobs=spending.jobs,
        runs_left=spending.runs_like(like) if like else None,
        spending=spending,
        changes=changes(tenant, account),
        picture=picture_of(tenant, account, runs),
        months_left=months_left(spending, runs, timezone.now()),
    )


def _charged(tenant: Tenant, account: PrivacyAccount) -> tuple[Mechanism, ...]:
    """What was charged so far, of ended and of running jobs alike."""
    planned: dict[tuple[object, str], Mechanism] = {}
    counts: Counter[tuple[object, str]] = Counter()
    for entry in entries_of(tenant, account).only("job", "kind", "mechanism"):
        if entry.kind == PrivacyEntry.Kind.RESERVED:
            planned[entry.job_id, entry.mechanism["name"]] = accounting.from_record(entry.mechanism)
        elif entry.kind == PrivacyEntry.Kind.CHARGED:
            counts[entry.job_id, entry.mechanism["name"]] += entry.mechanism["count"]
    return tuple(
        replace(planned[key], count=count) for key, count in counts.items() if count > 0 and key in planned
    )


def entry_rows(entries: Sequence[PrivacyEntry]) -> list[EntryRow]:
    """Ledger lines as the page prints them; `job` must be loaded."""
    return [
        EntryRow(
            seq=entry.seq,
            pill=PILLS.get(entry.kind, ""),
            kind_words=str(words.ENTRIES.get(entry.kind, entry.kind)),
            job=entry.job.public_id,
            mechanism_words=_mechanism_words(entry.kind, entry.mechanism),
            epsilon=entry.epsilon,
            entry_hash=entry.entry_hash,
            at=entry.at,
        )
        for entry in entries
    ]


def _mechanism_words(kind: str, record: dict[str, Any]) -> str:
    if "counts" in record:
        return ", ".join(f"{name} × {count:,}" for name, count in record["counts"].items())
    if "name" not in record:
        return ""
    return mechanism_words(accounting.from_record(record))


def mechanism_words(mechanism: Mechanism) -> str:
    """One mechanism: "train × 24: Gaussian, sigma 4.10, sampling rate 0.015"."""
    values = {
        "name": mechanism.name, "count": f"{mechanism.count:,}", "sigma": f"{mechanism.sigma:.3g}",
        "rate": f"{mechanism.sampling_rate:.3g}",
    }  # fmt: skip
    if mechanism.repeats:
        values["runs"] = f"{mechanism.repeats:g}"
        return _("%(name)s × %(count)s: best of %(runs)s runs on average, Gaussian, sigma %(sigma)s") % values
    if mechanism.sampling_rate >= 1:
        return _("%(name)s × %(count)s: Gaussian, sigma %(sigma)s, all people") % values
    return (
        _("%(name)s × %(count)s: Gaussian, sigma %(sigma)s, each person with probability %(rate)s") % values
    )
