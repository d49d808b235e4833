"""The picture of a lineage's budget: every run as a slice of the lifetime epsilon, in the order it was reserved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modeling.models import Job, PrivacyAccount
from modeling.queries.privacy import ALERTS, JobSpending, spending_of_jobs
from tenants.models import Tenant


@dataclass(frozen=True)
class Slice:
    """One run in the bar. `left` and `width` are SVG percentages; `added` is what it took in the filter's units."""

    job: str
    left: str
    width: str
    added: float
    epsilon: float | None  # by itself, PLD
    is_open: bool


@dataclass(frozen=True)
class Picture:
    """The bar of one lineage, and the marks at which the pages speak up."""

    slices: tuple[Slice, ...]
    marks: tuple[str, ...]


def picture_of(tenant: Tenant, account: PrivacyAccount, jobs: Sequence[JobSpending]) -> Picture:
    """Each run's slice is what the filter's epsilon grew by: later runs add less than they cost alone."""
    names = dict(
        Job.objects.of(tenant).filter(pk__in=[job.job_id for job in jobs]).values_list("pk", "public_id")
    )
    slices: list[Slice] = []
    before, lifetime = 0.0, account.lifetime_epsilon
    for number, job in enumerate(jobs, start=1):
        after = spending_of_jobs(account, jobs[:number]).used
        added = max(after - before, 0.0)
        if added > 0:
            slices.append(
                Slice(
                    job=str(names.get(job.job_id, "")),
                    left=_percent(before / lifetime),
                    width=_percent(added / lifetime),
                    added=added,
                    epsilon=job.epsilon,
                    is_open=not job.is_ended,
                )
            )
        before = max(after, before)
    return Picture(tuple(slices), tuple(_percent(mark) for mark in ALERTS))


def _percent(share: float) -> str:
    return f"{100 * min(max(share, 0.0), 1.0):.2f}%"
