"""How one model was used: requests, outcomes, latency, tokens and predictions, step by step and in all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import F, Q, Sum
from django.utils import timezone

from billing.plans import BATCH_SHARE, Plan
from billing.queries import month_start
from modeling.models.served import COUNTS, KEPT_DAYS, MINUTES, Answers, ServedMinutes
from modeling.serving import latency
from tenants.models import Tenant

STEP = timedelta(minutes=MINUTES)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
# Tokens are billed where text is embedded or generated; a classification is billed as a prediction.
_BILLED_BY_TOKEN = Q(route__in=["chat", "embeddings"]) | Q(route__in=["playground", "batch"], predictions=0)


@dataclass(slots=True)
class Served(Answers):
    """What a model answered in one stretch of time. `latency` and `first_token` count by serving.latency.BOUNDS."""

    at: datetime

    @property
    def requests(self) -> int:
        """All of them, however they ended."""
        return self.answered + self.errors + self.abandoned

    @property
    def errors(self) -> int:
        """Those that were refused or failed."""
        return self.client_errors + self.rejected + self.server_errors

    def quantiles(self) -> dict[str, float | None]:
        """p50, p95 and p99 of the answered requests in seconds, estimated within the bounds of their buckets."""
        return {f"p{share}": latency.quantile(self.latency, share / 100) for share in (50, 95, 99)}

    def add(self, rows: Iterable[Any]) -> None:
        """Count rows of ServedMinutes, or others of this kind, in."""
        for row in rows:
            for name in COUNTS:
                setattr(self, name, getattr(self, name) + getattr(row, name))
            self.latency = latency.added([self.latency, row.latency])
            self.first_token = latency.added([self.first_token, row.first_token])


@dataclass(frozen=True)
class Usage:
    """One model over a period: `total`, and `steps` of equal length, also those without a request."""

    start: datetime
    end: datetime
    step: timedelta
    total: Served
    steps: list[Served]


def step_for(length: timedelta) -> timedelta:
    """Five minutes up to three hours, an hour up to four days, then a day."""
    return STEP if length <= 3 * HOUR else HOUR if length <= 4 * DAY else DAY


def usage(tenant: Tenant, model: str, start: datetime, end: datetime) -> Usage:
    """The model between two moments, both moved outwards to whole steps; needs the tenant's scope.

    Nothing older than KEPT_DAYS is there.
    """
    step = step_for(end - start)
    start = _floor(max(start, timezone.now() - timedelta(days=KEPT_DAYS)), step)
    end = max(start, _ceiling(end, step))
    steps = {start + n * step: Served(start + n * step) for n in range((end - start) // step)}
    rows = ServedMinutes.objects.of(tenant).filter(model=model, at__gte=start, at__lt=end)
    for row in rows.only("at", "latency", "first_token", *COUNTS).iterator():
        steps[_floor(row.at, step)].add([row])
    total = Served(start)
    total.add(steps.values())
    return Usage(start, end, step, total, list(steps.values()))


@dataclass(frozen=True)
class MonthlyCost:
    """What a model used since the first of the month, and what that comes to at the plan's prices per unit."""

    predictions: int
    tokens: int
    cents: float
    is_sold: bool  # whether the plan sells these beyond what it includes


def cost_this_month(tenant: Tenant, model: str, plan: Plan) -> MonthlyCost:
    """Needs the tenant's scope."""
    rows = ServedMinutes.objects.of(tenant).filter(model=model, at__gte=month_start())
    tokens = Sum(F("tokens_in") + F("tokens_out"), filter=_BILLED_BY_TOKEN, default=0)
    found = {"predictions": 0, "tokens": 0}
    cents = 0.0
    by_route = rows.values_list("route").annotate(made=Sum("predictions"), billed=tokens).order_by("route")
    for route, *amounts in by_route:
        for kind, amount in zip(found, amounts, strict=True):
            found[kind] += amount
            cents += plan.price_of(kind) * amount * (BATCH_SHARE if route == "batch" else 1.0)
    return MonthlyCost(**found, cents=cents, is_sold=any(plan.price_of(kind) for kind in found))


def usage_body(model: str, found: Usage) -> dict[str, Any]:
    """The usage of a model on the wire: times in epoch seconds, latencies in milliseconds."""
    return {
        "object": "model.usage",
        "model": model,
        "from": int(found.start.timestamp()),
        "to": int(found.end.timestamp()),
        "step_seconds": int(found.step.total_seconds()),
        "kept_days": KEPT_DAYS,
        "total": _body(found.total),
        "data": [_body(one) | {"at": int(one.at.timestamp())} for one in found.steps if one.requests],
    }


def _body(one: Served) -> dict[str, Any]:
    first = latency.quantile(one.first_token, 0.5)
    return {
        "requests": one.requests,
        **{name: getattr(one, name) for name in COUNTS},
        "latency_ms": {name: _milliseconds(value) for name, value in one.quantiles().items()},
        "first_token_ms": _milliseconds(first),
    }


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 2)


def _floor(moment: datetime, step: timedelta) -> datetime:
    length = int(step.total_seconds())
    return datetime.fromtimestamp(moment.timestamp() // length * length, UTC)


def _ceiling(moment: datetime, step: timedelta) -> datetime:
    floor = _floor(moment, step)
    return floor if floor == moment else floor + step
