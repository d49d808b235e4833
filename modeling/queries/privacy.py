"""What the people of a lineage have spent, what is left, and the ledger's lines."""

from __future__ import annotations

import math
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property, lru_cache
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from modeling.core import accounting
from modeling.core.types import Mechanism
from modeling.models import Dataset, PrivacyAccount, PrivacyEntry
from tenants.models import Tenant
from tenants.scope import TenantQuerySet

MOST_RUNS = 1000
RECENT, LEAST_HISTORY, MONTH = timedelta(days=90), timedelta(days=14), timedelta(days=30.44)
ALERTS = (0.5, 0.8, 0.95)  # shares of a lifetime budget at which the pages speak up


@dataclass(frozen=True)
class Spending:
    """The mechanisms that count against one account: charged ones of ended jobs, whole reservations of open ones.

    `used`, `left` and `epsilon_after` are the filter's own numbers (Renyi, zero-out): the guarantee for jobs chosen one
    after another. `history_*` are PLD, as if all jobs had been chosen in advance.
    """

    lifetime_epsilon: float
    delta: float
    is_parallel: bool
    no_bound: bool
    mechanisms: tuple[Mechanism, ...]
    jobs: int

    def epsilon_after(self, more: Iterable[Mechanism], times: float = 1) -> float:
        """The filter's epsilon once these mechanisms are added `times` times."""
        sums = dict(self._vectors)
        for mechanism in more:
            vector = [times * value for value in accounting.rdp(mechanism)]
            side = mechanism.partition if self.is_parallel else "all"
            sums[side] = accounting.add_rdp([sums[side], vector]) if side in sums else vector
        return max((accounting.filter_epsilon(total, self.delta) for total in sums.values()), default=0.0)

    @cached_property
    def _vectors(self) -> dict[str, list[float]]:
        """The Renyi sum per partition; one sum over both when they do not compose in parallel."""
        sides: dict[str, list[list[float]]] = defaultdict(list)
        for mechanism in self.mechanisms:
            sides[mechanism.partition if self.is_parallel else "all"].append(accounting.rdp(mechanism))
        return {side: accounting.add_rdp(vectors) for side, vectors in sides.items()}

    @cached_property
    def used(self) -> float:
        """Epsilon used or set aside so far."""
        return self.epsilon_after(())

    @property
    def left(self) -> float:
        """Epsilon that remains of the lifetime budget; a job's own cost is not simply subtracted from it."""
        return max(self.lifetime_epsilon - self.used, 0.0)

    def runs_like(self, mechanisms: Sequence[Mechanism]) -> int:
        """How many more jobs of exactly these mechanisms fit; at most 1000."""
        if not mechanisms:
            return 0
        low, high = 0, 1
        while high <= MOST_RUNS and self.epsilon_after(mechanisms, high) <= self.lifetime_epsilon:
            low, high = high, high * 2
        while high - low > 1:
            middle = (low + high) // 2
            fits = self.epsilon_after(mechanisms, middle) <= self.lifetime_epsilon
            low, high = (middle, high) if fits else (low, middle)
        return min(low, MOST_RUNS)

    def history(self, adjacency: accounting.Adjacency = "zero_out") -> float:
        """PLD epsilon over the account's whole history, as if all of it had been chosen in advance."""
        merged: Counter[Mechanism] = Counter()
        selected: list[Mechanism] = []  # two selections are not one selection of twice the steps
        for mechanism in self.mechanisms:
            side = mechanism.partition if self.is_parallel else "train"
            if mechanism.repeats:
                selected.append(replace(mechanism, name="", partition=side))
            else:
                merged[replace(mechanism, name="", count=1, partition=side)] += mechanism.count
        whole = [replace(one, count=count) for one, count in merged.items()]
        return _history(tuple(sorted([*whole, *selected], key=repr)), self.delta, adjacency)


@lru_cache(maxsize=256)
def _history(mechanisms: tuple[Mechanism, ...], delta: float, adjacency: accounting.Adjacency) -> float:
    return accounting.epsilon(mechanisms, delta, adjacency=adjacency)


def root_of(tenant: Tenant, account: PrivacyAccount) -> PrivacyAccount:
    """The account that this one was merged into, or itself."""
    if account.merged_into_id is None:
        return account
    return PrivacyAccount.objects.of(tenant).get(pk=account.merged_into_id)


def entries_of(tenant: Tenant, account: PrivacyAccount) -> TenantQuerySet[PrivacyEntry]:
    """All ledger lines of the account and of those merged into it, oldest first."""
    merged = PrivacyAccount.objects.of(tenant).filter(merged_into=account.pk).values_list("pk", flat=True)
    return PrivacyEntry.objects.of(tenant).filter(account__in=[account.pk, *merged]).order_by("seq")


@dataclass(frozen=True)
class JobSpending:
    """What one job counts against its account: what was charged once it has ended, its whole reservation before."""

    job_id: uuid.UUID
    at: datetime
    mechanisms: tuple[Mechanism, ...]
    is_ended: bool
    epsilon: float | None  # PLD, of what counts


def spending_by_job(tenant: Tenant, account: PrivacyAccount) -> list[JobSpending]:
    """One line per job that was ever reserved, in that order, read from the ledger's lines alone."""
    planned: dict[uuid.UUID, dict[str, Mechanism]] = defaultdict(dict)
    charged: dict[uuid.UUID, Counter[str]] = defaultdict(Counter)
    first: dict[uuid.UUID, datetime] = {}
    epsilons: dict[uuid.UUID, float | None] = {}
    ended = set()
    for entry in entries_of(tenant, account).only("job", "kind", "mechanism", "at", "epsilon"):
        if entry.kind == PrivacyEntry.Kind.RESERVED:
            planned[entry.job_id][entry.mechanism["name"]] = accounting.from_record(entry.mechanism)
            first.setdefault(entry.job_id, entry.at)
            epsilons[entry.job_id] = entry.epsilon
        elif entry.kind == PrivacyEntry.Kind.CHARGED:
            charged[entry.job_id][entry.mechanism["name"]] += entry.mechanism["count"]
        elif entry.kind in PrivacyEntry.CLOSING:
            ended.add(entry.job_id)
            epsilons[entry.job_id] = entry.epsilon
    found = []
    for job, mechanisms in planned.items():
        counting = tuple(
            replace(mechanism, count=charged[job][name]) if job in ended else mechanism
            for name, mechanism in mechanisms.items()
        )
        used = tuple(one for one in counting if one.count > 0)
        found.append(JobSpending(job, first[job], used, job in ended, epsilons[job]))
    return found


def spending_of(tenant: Tenant, account: PrivacyAccount) -> Spending:
    """What counts against the account, read from the ledger's lines alone."""
    return spending_of_jobs(account, spending_by_job(tenant, account))


def spending_of_jobs(account: PrivacyAccount, jobs: Sequence[JobSpending]) -> Spending:
    """The account's spending over these jobs."""
    return Spending(
        lifetime_epsilon=account.lifetime_epsilon,
        delta=account.delta,
        is_parallel=account.is_parallel,
        no_bound=account.no_bound,
        mechanisms=tuple(one for job in jobs for one in job.mechanisms),
        jobs=len(jobs),
    )


def words_left(spending: Spending, like: Sequence[Mechanism] = ()) -> str:
    """What is left, as a sentence; with a job's mechanisms also how many more such jobs fit."""
    if spending.no_bound:
        return _("A job ran without privacy on these people, so no bound can be stated.")
    text = _("%(left).1f of %(lifetime).1f epsilon is left for these people.") % {
        "left": math.floor(10 * spending.left) / 10, "lifetime": spending.lifetime_epsilon,
    }  # fmt: skip
    if not like:
        return text
    runs = spending.runs_like(like)
    more = ngettext("About %(n)s more run like this.", "About %(n)s more runs like this.", runs) % {"n": runs}
    return f"{text} {more}"


def alert_of(used: float, lifetime: float) -> float | None:
    """The highest of ALERTS that was reached, or None below the first."""
    return max((share for share in ALERTS if used >= share * lifetime), default=None)


def alert_words(used: float, lifetime: float, *, planned: float | None = None) -> str:
    """A sentence once a share of ALERTS is reached, or would be by a run that takes it to `planned`; "" before."""
    reached, then = alert_of(used, lifetime), alert_of(planned or used, lifetime)
    if reached is not None and then == reached:
        return _("More than %(share)s %% of these people's lifetime privacy budget is used or set aside.") % {
            "share": f"{100 * reached:.0f}"
        }
    if then is not None:
        return _("This run takes these people's lifetime privacy budget past %(share)s %%.") % {
            "share": f"{100 * then:.0f}"
        }
    return ""


def months_left(spending: Spending, jobs: Sequence[JobSpending], now: datetime) -> float | None:
    """How long the budget lasts if jobs go on as in the last RECENT days; None without two weeks of history."""
    if not jobs or now - jobs[0].at < LEAST_HISTORY or spending.no_bound:
        return None
    recent = [one for job in jobs if now - job.at <= RECENT for one in job.mechanisms]
    if not recent:
        return None
    low, high = 0.0, 1.0
    while high <= MOST_RUNS and spending.epsilon_after(recent, high) <= spending.lifetime_epsilon:
        low, high = high, high * 2
    for _step in range(20):
        middle = (low + high) / 2
        fits = spending.epsilon_after(recent, middle) <= spending.lifetime_epsilon
        low, high = (middle, high) if fits else (low, middle)
    span = min(RECENT, now - jobs[0].at)
    return low * span.total_seconds() / MONTH.total_seconds()


def last_mechanisms(tenant: Tenant, account: PrivacyAccount) -> list[Mechanism]:
    """The mechanisms of the account's latest reservation: what "a run like this" means on its page."""
    reserved = entries_of(tenant, account).filter(kind=PrivacyEntry.Kind.RESERVED)
    last = reserved.last()
    if last is None:
        return []
    return [accounting.from_record(entry.mechanism) for entry in reserved.filter(job=last.job_id)]


def account_rows(tenant: Tenant) -> list[dict[str, Any]]:
    """One row per live account: its datasets, what was used, what is left, in numbers and words."""
    rows = []
    for account in PrivacyAccount.objects.of(tenant).filter(merged_into=None).order_by("pk"):
        jobs = spending_by_job(tenant, account)
        spending = spending_of_jobs(account, jobs)
        datasets = Dataset.objects.of(tenant).filter(account=account).order_by("pk")
        rows.append(
            {
                "id": str(account.pk),
                "datasets": list(datasets.values_list("public_id", flat=True)),
                "names": list(datasets.values_list("name", flat=True)),
                "unit": account.unit_label,
                "lifetime_epsilon": account.lifetime_epsilon,
                "delta": account.delta,
                "used": spending.used,
                "left": spending.left,
                "history": spending.history(),
                "history_replace_one": spending.history("replace_one"),
                "no_bound": account.no_bound,
                "jobs": spending.jobs,
                "runs_left": spending.runs_like(last_mechanisms(tenant, account)),
                "months_left": months_left(spending, jobs, timezone.now()),
                "alert_at": alert_of(spending.used, account.lifetime_epsilon),
                "words": words_left(spending, last_mechanisms(tenant, account)),
            }
        )
    return rows
