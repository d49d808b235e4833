"""What the people of a lineage have spent, what is left, and the ledger's lines."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from modeling.core import accounting
from modeling.core.types import Mechanism
from modeling.models import Dataset, PrivacyAccount, PrivacyEntry
from tenants.models import Tenant
from tenants.scope import TenantQuerySet

MOST_RUNS = 1000


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

    def epsilon_after(self, more: Iterable[Mechanism], times: int = 1) -> float:
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
        for mechanism in self.mechanisms:
            one = replace(
                mechanism, name="", count=1, partition=mechanism.partition if self.is_parallel else "train"
            )
            merged[one] += mechanism.count
        whole = tuple(replace(one, count=count) for one, count in sorted(merged.items(), key=repr))
        return _history(whole, self.delta, adjacency)


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


def spending_of(tenant: Tenant, account: PrivacyAccount) -> Spending:
    """What counts against the account, read from the ledger's lines alone."""
    planned: dict[tuple[object, str], Mechanism] = {}
    charged: Counter[tuple[object, str]] = Counter()
    ended = set()
    for entry in entries_of(tenant, account).only("job", "kind", "mechanism"):
        if entry.kind == PrivacyEntry.Kind.RESERVED:
            planned[entry.job_id, entry.mechanism["name"]] = accounting.from_record(entry.mechanism)
        elif entry.kind == PrivacyEntry.Kind.CHARGED:
            charged[entry.job_id, entry.mechanism["name"]] += entry.mechanism["count"]
        elif entry.kind in PrivacyEntry.CLOSING:
            ended.add(entry.job_id)
    counting = [
        replace(mechanism, count=charged[key]) if key[0] in ended else mechanism
        for key, mechanism in planned.items()
    ]
    return Spending(
        lifetime_epsilon=account.lifetime_epsilon,
        delta=account.delta,
        is_parallel=account.is_parallel,
        no_bound=account.no_bound,
        mechanisms=tuple(one for one in counting if one.count > 0),
        jobs=len({job for job, _name in planned}),
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
        spending = spending_of(tenant, account)
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
                "words": words_left(spending, last_mechanisms(tenant, account)),
            }
        )
    return rows
