"""Reads: a tenant's plan, its standing and what it used this month."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

from django.db.models import Sum
from django.db.models.functions import TruncDate
from django.utils import timezone

from billing.models import Subscription, UsageEvent
from billing.plans import FREE, PLANS, Plan
from tenants.models import Tenant
from tenants.scope import OPERATOR

GRACE = timedelta(days=7)
READ_ONLY = timedelta(days=21)


class Standing(StrEnum):
    """How a tenant stands with its bill: from all well to suspended; nothing is deleted on the way."""

    GOOD = "good"
    GRACE = "grace"
    READ_ONLY = "read_only"
    SUSPENDED = "suspended"


def subscription_of(tenant: Tenant) -> Subscription | None:
    """The tenant's subscription row; None on the Free plan. Needs the tenant's scope."""
    return Subscription.objects.of(tenant).first()


def plan_of(tenant: Tenant) -> Plan:
    """The plan in force: a cancelled or incomplete subscription is Free."""
    return _plan_by(subscription_of(tenant))


def _plan_by(found: Subscription | None) -> Plan:
    paying = {"active", "trialing", "past_due", "unpaid"}
    return PLANS.get(found.plan, FREE) if found and found.status in paying else FREE


def standing_of(tenant: Tenant, *, now: datetime | None = None) -> Standing:
    """Dunning: 7 days' grace after a failed payment, then 14 days read-only, then suspended."""
    return _standing_by(tenant, subscription_of(tenant), now or timezone.now())


def account_of(tenant: Tenant) -> tuple[Plan, Standing]:
    """Plan and standing by one read; needs the tenant's scope."""
    found = subscription_of(tenant)
    return _plan_by(found), _standing_by(tenant, found, timezone.now())


def _standing_by(tenant: Tenant, found: Subscription | None, now: datetime) -> Standing:
    if tenant.state != Tenant.State.ACTIVE:
        return Standing.SUSPENDED
    if found is None or found.past_due_since is None:
        return Standing.GOOD
    overdue = now - found.past_due_since
    if overdue <= GRACE:
        return Standing.GRACE
    return Standing.READ_ONLY if overdue <= READ_ONLY else Standing.SUSPENDED


def running_caps(tenant_ids: Collection[UUID]) -> dict[UUID, int]:
    """How many jobs each of these tenants may run now, 0 while it may not train; read across them as operator."""
    rows = {one.tenant_id: one for one in Subscription.objects.everywhere().filter(tenant_id__in=tenant_ids)}
    caps = {}
    for tenant in Tenant.objects.using(OPERATOR).filter(pk__in=tenant_ids):
        standing = _standing_by(tenant, rows.get(tenant.pk), timezone.now())
        may_train = standing in (Standing.GOOD, Standing.GRACE)
        caps[tenant.pk] = _plan_by(rows.get(tenant.pk)).running_jobs if may_train else 0
    return caps


def month_start(now: datetime | None = None) -> datetime:
    """Midnight UTC of the first of this month."""
    return (now or timezone.now()).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def usage_this_month(tenant: Tenant, *, now: datetime | None = None) -> dict[str, Decimal]:
    """Quantity per metered kind since the first of the month, UTC."""
    rows = UsageEvent.objects.of(tenant).filter(at__gte=month_start(now))
    used = {str(kind): Decimal(0) for kind in UsageEvent.Kind.values}
    used.update(rows.values_list("kind").annotate(total=Sum("quantity")))
    return used


@dataclass(frozen=True)
class Day:
    """One day of use."""

    day: date
    predictions: float
    tokens: float
    training_seconds: float


def usage_by_day(tenant: Tenant, *, days: int = 30, now: datetime | None = None) -> list[Day]:
    """Daily quantities of the last `days` days, oldest first, only days with use."""
    since = (now or timezone.now()) - timedelta(days=days)
    rows = (
        UsageEvent.objects.of(tenant)
        .filter(at__gte=since)
        .values("kind", day=TruncDate("at"))
        .annotate(total=Sum("quantity"))
        .order_by("day")
    )
    found: dict[date, dict[str, float]] = {}
    for row in rows:
        found.setdefault(row["day"], {})[row["kind"]] = float(row["total"])
    kinds = ("predictions", "tokens", "training_seconds")
    return [
        Day(day, *(used.get(kind, 0.0) for kind in kinds))
        for day, used in found.items()
        if set(used) & set(kinds)
    ]
