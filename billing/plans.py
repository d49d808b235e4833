"""Plans as frozen dataclasses: code, not rows."""

from __future__ import annotations

from dataclasses import dataclass

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

GB = 10**9
BATCH_SHARE = 0.5  # what a prediction or token of a batch file counts, against the plan and on the bill


@dataclass(frozen=True)
class Plan:
    """What a tenant may use in a month and what it costs; money in US cents, storage in bytes.

    `meter_cents` prices one unit of each metered kind beyond what the plan includes (0: not sold beyond).
    """

    code: str
    name: str | Promise
    price_cents: int
    storage_bytes: int
    running_jobs: int
    queued_jobs: int
    open_batches: int
    training_seconds_included: int
    predictions: int
    tokens: int
    requests_per_minute: int  # of the gateway's calls
    tokens_per_minute: int
    management_requests_per_minute: int  # of the rest of /v1
    meter_cents: tuple[tuple[str, float], ...]

    def price_of(self, kind: str) -> float:
        """Cents for one unit of a metered kind."""
        return dict(self.meter_cents).get(kind, 0.0)


FREE = Plan(
    code="free",
    name=_("Free"),
    price_cents=0,
    storage_bytes=GB // 2,
    running_jobs=1,
    queued_jobs=3,
    open_batches=2,
    training_seconds_included=3_600,
    predictions=10_000,
    tokens=200_000,
    requests_per_minute=600,
    tokens_per_minute=200_000,
    management_requests_per_minute=3_000,
    meter_cents=(),
)
TEAM = Plan(
    code="team",
    name=_("Team"),
    price_cents=24_900,
    storage_bytes=50 * GB,
    running_jobs=2,
    queued_jobs=20,
    open_batches=10,
    training_seconds_included=36_000,
    predictions=1_000_000,
    tokens=20_000_000,
    requests_per_minute=6_000,
    tokens_per_minute=2_000_000,
    management_requests_per_minute=12_000,
    meter_cents=(("training_seconds", 0.08), ("predictions", 0.02), ("tokens", 0.0002)),
)
BUSINESS = Plan(
    code="business",
    name=_("Business"),
    price_cents=149_000,
    storage_bytes=1_000 * GB,
    running_jobs=6,
    queued_jobs=200,
    open_batches=50,
    training_seconds_included=360_000,
    predictions=20_000_000,
    tokens=400_000_000,
    requests_per_minute=30_000,
    tokens_per_minute=10_000_000,
    management_requests_per_minute=60_000,
    meter_cents=(("training_seconds", 0.06), ("predictions", 0.01), ("tokens", 0.0001)),
)
PLANS: dict[str, Plan] = {plan.code: plan for plan in (FREE, TEAM, BUSINESS)}
