"""Counts what was used, orders plans, applies what Stripe says."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Q, Sum
from django.utils import timezone

from billing import gateway
from billing.models import StripeEvent, Subscription, UsageEvent
from billing.plans import PLANS
from saas.lib import background
from saas.lib.db import uuid7
from saas.lib.errors import Refusal
from tenants import audit
from tenants.models import Tenant, User, VaultObject
from tenants.scope import TenantQuerySet, door, scope

logger = logging.getLogger(__name__)
PAYING = {"active", "trialing"}
OVERDUE = {"past_due", "unpaid"}
REPORT_BATCH = 500
TRIES = 20


def record_usage(
    tenant: Tenant, kind: str, quantity: float, request_id: str, *, at: datetime | None = None
) -> None:
    """Insert a usage event; a second one for the same request and kind changes nothing. Needs the tenant's scope."""
    record_usages(tenant, [(kind, quantity, request_id, at or timezone.now())])


def record_usages(tenant: Tenant, events: list[tuple[str, float, str, datetime]]) -> None:
    """Insert many (kind, quantity, request id, time) at once, each idempotent."""
    rows = [
        UsageEvent(
            id=uuid7(),
            tenant_id=tenant.pk,
            kind=kind,
            quantity=Decimal(f"{quantity:.3f}"),
            request_id=request_id,
            at=at,
        )
        for kind, quantity, request_id, at in events
        if quantity > 0
    ]
    UsageEvent.objects.of(tenant).bulk_create(rows, ignore_conflicts=True)


def order_plan(tenant: Tenant, user: User, code: str, *, return_url: str) -> str:
    """Begin a checkout for a plan; returns the address to send the payer to."""
    plan = PLANS.get(code)
    if plan is None or not plan.price_cents:
        raise Refusal("Choose one of the plans that are sold.", param="plan")
    customer = _customer(tenant, user)
    return gateway.checkout_url(customer, plan, success_url=f"{return_url}?paid=1", cancel_url=return_url)


def open_portal(tenant: Tenant, *, return_url: str) -> str:
    """The address of the customer's own pages at the payment service."""
    with scope(tenant):
        row = Subscription.objects.of(tenant).exclude(stripe_customer="").first()
    if row is None:
        raise Refusal("There is nothing to manage yet: order a plan first.", status=409, code="no_customer")
    return gateway.portal_url(row.stripe_customer, return_url=return_url)


def _customer(tenant: Tenant, user: User) -> str:
    """The tenant's customer id at Stripe, made at the first order; the network call holds no transaction."""
    with scope(tenant):
        row, _ = Subscription.objects.of(tenant).get_or_create(tenant_id=tenant.pk)
    if row.stripe_customer:
        return row.stripe_customer
    made = gateway.create_customer(str(tenant.pk), tenant.name, user.email)
    with scope(tenant):
        Subscription.objects.of(tenant).filter(stripe_customer="").update(stripe_customer=made)
        row.refresh_from_db()
        audit.record(tenant, audit.Actor("user", str(user.pk), user.email), "billing.customer_created", row)
    return row.stripe_customer


def store_event(notice: gateway.Notice) -> None:
    """Keep a verified webhook once and have it processed from the table."""
    with transaction.atomic():
        StripeEvent.objects.bulk_create(
            [
                StripeEvent(
                    event_id=notice.event_id,
                    kind=notice.kind,
                    customer=notice.customer,
                    object_id=notice.object_id,
                    happened_at=notice.happened_at,
                )
            ],
            ignore_conflicts=True,
        )
        background.enqueue("billing.process_events")


def process_events() -> int:
    """Apply stored events and return how many: each refetches the subscription, so order and repeats do not matter."""
    waiting = StripeEvent.objects.filter(processed_at=None, attempts__lt=TRIES).order_by("happened_at")[:200]
    done = 0
    for event in waiting:
        problem = _apply(event)
        StripeEvent.objects.filter(pk=event.pk).update(
            attempts=event.attempts + 1, error=problem, processed_at=None if problem else timezone.now()
        )
        done += not problem
    return done


def _apply(event: StripeEvent) -> str:
    if not event.customer:
        return ""
    try:
        sync_customer(event.customer)
    except Refusal as error:
        return error.message
    return ""


def sync_customer(customer: str) -> None:
    """Read the customer's subscriptions at Stripe and write what is in force; unknown customers are left alone."""
    asked_at = timezone.now()
    with door("stripe_customer", customer):
        known = (
            TenantQuerySet(Subscription)
            .filter(stripe_customer=customer)
            .values_list("tenant_id", flat=True)
            .first()
        )
    if known is None:
        return
    rows = gateway.fetch_subscriptions(customer)
    live = [row for row in rows if row.status in PAYING | OVERDUE]
    chosen = (live or rows)[:1]
    with scope(known):
        if chosen:
            _write(known, chosen[0], asked_at)


def _write(tenant_id: UUID, ordered: gateway.Ordered, asked_at: datetime) -> None:
    tenant = Tenant.objects.get(pk=tenant_id)
    row = Subscription.objects.of(tenant).select_for_update().get()
    if row.as_of is not None and row.as_of >= asked_at:
        return
    before = (row.plan, row.status)
    overdue_since = (row.past_due_since or asked_at) if ordered.status in OVERDUE else None
    Subscription.objects.of(tenant).update(
        plan=ordered.plan if ordered.plan in PLANS else "free",
        status=ordered.status,
        stripe_subscription=ordered.subscription,
        period_end_at=ordered.period_end_at,
        cancel_at_period_end=ordered.cancel_at_period_end,
        past_due_since=overdue_since,
        as_of=asked_at,
    )
    if before != (ordered.plan, ordered.status) and tenant.state != Tenant.State.ERASED:
        actor = audit.Actor("system", "stripe", "Stripe")
        audit.record(
            tenant, actor, "billing.subscription_changed", row, plan=ordered.plan, status=ordered.status
        )


def reconcile() -> int:
    """Nightly: read every customer's subscription again. Returns how many were read."""
    customers = (
        Subscription.objects.everywhere()
        .exclude(stripe_customer="")
        .values_list("stripe_customer", flat=True)
    )
    return sum(_unless_refused(_read_again, customer, customer) for customer in customers)


def _read_again(customer: str) -> int:
    sync_customer(customer)
    return 1


def report_usage() -> int:
    """Send unreported usage of paying tenants to Stripe's meters, each row once under its own id. Returns how many."""
    payers = Subscription.objects.everywhere().exclude(stripe_customer="").filter(status__in=PAYING | OVERDUE)
    return sum(_unless_refused(report_tenant, row, row.stripe_customer) for row in payers)


def _unless_refused(work: Callable[[Any], int], subject: Any, customer: str) -> int:
    """One customer that Stripe refuses does not hold up the others; the next round tries it again."""
    try:
        return work(subject)
    except gateway.PaymentRefused as refused:
        logger.warning("customer %s: %s", customer, refused.__cause__)
        return 0


def report_tenant(subscription: Subscription) -> int:
    """Report at most REPORT_BATCH unreported uses of one paying tenant; returns how many."""
    tenant_id = subscription.tenant_id
    with scope(tenant_id):
        rows = list(
            UsageEvent.objects.of(tenant_id)
            .filter(reported_at=None, kind__in=gateway.METERS)
            .order_by("at")[:REPORT_BATCH]
        )
    for row in rows:
        customer = subscription.stripe_customer
        gateway.report_meter(row.kind, customer, float(row.quantity), identifier=str(row.pk), at=row.at)
        with scope(tenant_id):
            UsageEvent.objects.of(tenant_id).filter(pk=row.pk).update(reported_at=timezone.now())
    return len(rows)


def measure_storage(now: datetime | None = None) -> int:
    """Hourly: record each tenant's stored byte-hours of the past hour, once per hour. Returns how many tenants."""
    hour = (now or timezone.now()).replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)
    tenants = list(Tenant.objects.using("operator").values_list("pk", flat=True))
    for tenant_id in tenants:
        with scope(tenant_id):
            tenant = Tenant.objects.get(pk=tenant_id)
            record_usage(
                tenant, "stored_byte_hours", float(stored_bytes(tenant)), f"storage-{hour:%Y%m%dT%H}", at=hour
            )
    return len(tenants)


def stored_bytes(tenant: Tenant) -> int:
    """Bytes of the tenant's living objects in the vault, sealed size. Needs the tenant's scope."""
    living = VaultObject.objects.of(tenant).filter(Q(destroyed_at=None))
    return int(living.aggregate(total=Sum("sealed_bytes"))["total"] or 0)
