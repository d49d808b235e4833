"""The only file that speaks to Stripe: customers, checkout, portal, meters, webhooks; the SDK pins the API version."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import stripe
from django.conf import settings
from django.utils.translation import gettext as _

from billing.plans import PLANS, Plan
from saas.lib.errors import Refusal

METERS = {
    "training_seconds": "cloister_training_seconds",
    "predictions": "cloister_predictions",
    "tokens": "cloister_tokens",
}
LIVING = frozenset({"active", "trialing", "past_due", "unpaid", "incomplete", "paused"})  # not ended for good


class PaymentUnreachable(Refusal):
    """The payment service did not answer."""

    status = 503
    code = "payment_unreachable"
    kind = "billing_error"


class PaymentRefused(Refusal):
    """The payment service answered, and said no: a deleted customer, a wrong key."""

    status = 502
    code = "payment_refused"
    kind = "billing_error"


class BadSignature(Refusal):
    """A webhook that Stripe did not sign."""

    code = "bad_signature"


@dataclass(frozen=True)
class Ordered:
    """A subscription as Stripe has it now."""

    subscription: str
    customer: str
    status: str
    plan: str
    period_end_at: datetime | None
    cancel_at_period_end: bool


@dataclass(frozen=True)
class Notice:
    """A verified webhook event."""

    event_id: str
    kind: str
    customer: str
    object_id: str
    happened_at: datetime


@lru_cache(maxsize=1)
def _client() -> stripe.StripeClient:
    return stripe.StripeClient(
        settings.STRIPE_SECRET_KEY or "sk_test_standin",
        base_addresses={"api": settings.STRIPE_API_BASE},
        max_network_retries=2,
    )


def _ask(call: Any, *arguments: Any, **options: Any) -> Any:
    try:
        return call(*arguments, **options)
    except stripe.APIConnectionError as error:
        raise PaymentUnreachable(
            _("The payment service does not answer. Nothing was changed; try again in a minute.")
        ) from error
    except stripe.StripeError as error:
        raise PaymentRefused(
            _("The payment service refused this. Nothing was changed; write to us if it stays so.")
        ) from error


def lookup_key(plan: Plan) -> str:
    """The name under which a plan's monthly price is kept at Stripe."""
    return f"cloister_{plan.code}_monthly"


def ensure_catalogue() -> dict[str, str]:
    """Make products, prices and meters that do not exist yet; returns price id by plan code."""
    client = _client()
    keys = {lookup_key(plan): plan for plan in PLANS.values() if plan.price_cents}
    found = _ask(client.v1.prices.list, {"lookup_keys": list(keys)})
    prices = {str(keys[row.lookup_key].code): str(row.id) for row in found.data if row.lookup_key in keys}
    for key, plan in keys.items():
        if plan.code not in prices:
            product = client.v1.products.create(
                {"name": f"Cloister {plan.code}", "metadata": {"plan": plan.code}}
            )
            price = client.v1.prices.create(
                {
                    "product": product.id,
                    "currency": "usd",
                    "unit_amount": plan.price_cents,
                    "recurring": {"interval": "month"},
                    "lookup_key": key,
                    "nickname": f"Cloister {plan.code}",
                }
            )
            prices[plan.code] = price.id
    known = {meter.event_name for meter in _ask(client.v1.billing.meters.list, {"limit": 100}).data}
    for kind, event_name in METERS.items():
        if event_name not in known:
            client.v1.billing.meters.create(
                {"display_name": kind, "event_name": event_name, "default_aggregation": {"formula": "sum"}}
            )
    return prices


def create_customer(tenant_id: str, name: str, email: str) -> str:
    """A customer at Stripe; only the tenant's id travels, never its data. Returns the customer's id."""
    made = _ask(
        _client().v1.customers.create, {"name": name, "email": email, "metadata": {"tenant": tenant_id}}
    )
    return str(made.id)


def checkout_url(customer: str, plan: Plan, *, success_url: str, cancel_url: str) -> str:
    """Where the payer goes to order a plan."""
    price = ensure_catalogue()[plan.code]
    made = _ask(
        _client().v1.checkout.sessions.create,
        {
            "mode": "subscription",
            "customer": customer,
            "line_items": [{"price": price, "quantity": 1}],
            "success_url": success_url,
            "cancel_url": cancel_url,
            "subscription_data": {"metadata": {"plan": plan.code}},
        },
    )
    return str(made.url)


def portal_url(customer: str, *, return_url: str) -> str:
    """Where the payer manages cards, invoices and cancellation."""
    made = _ask(_client().v1.billing_portal.sessions.create, {"customer": customer, "return_url": return_url})
    return str(made.url)


def fetch_subscriptions(customer: str) -> list[Ordered]:
    """All subscriptions of a customer as they are now, newest first."""
    rows = _ask(_client().v1.subscriptions.list, {"customer": customer, "status": "all"}).data
    return [_ordered(row) for row in rows]


def cancel_subscription(subscription: str) -> None:
    """End a subscription now, with an invoice over what is not invoiced yet."""
    _ask(_client().v1.subscriptions.cancel, subscription, {"invoice_now": True, "prorate": False})


def _ordered(row: Any) -> Ordered:
    item = row["items"]["data"][0]
    key = item["price"]["lookup_key"] or ""
    end = item["current_period_end"]
    return Ordered(
        subscription=row["id"],
        customer=row["customer"],
        status=row["status"],
        plan=key.removeprefix("cloister_").removesuffix("_monthly"),
        period_end_at=datetime.fromtimestamp(end, UTC) if end else None,
        cancel_at_period_end=bool(row["cancel_at_period_end"]),
    )


def report_meter(kind: str, customer: str, quantity: float, *, identifier: str, at: datetime) -> None:
    """Tell Stripe one metered use; the identifier makes a repeat harmless."""
    try:
        _ask(
            _client().v1.billing.meter_events.create,
            {
                "event_name": METERS[kind],
                "identifier": identifier,
                "timestamp": int(at.timestamp()),
                "payload": {"stripe_customer_id": customer, "value": str(max(1, round(quantity)))},
            },
        )
    except PaymentRefused as refused:
        if getattr(refused.__cause__, "param", None) != "identifier":
            raise


def read_webhook(body: bytes, signature: str) -> Notice:
    """Verify the raw bytes and pick out ids; raises BadSignature."""
    try:
        event = stripe.Webhook.construct_event(body, signature, settings.STRIPE_WEBHOOK_SECRET)
    except (ValueError, stripe.SignatureVerificationError) as error:
        raise BadSignature(_("This message was not signed by the payment service.")) from error
    subject = event["data"]["object"].to_dict()
    return Notice(
        event_id=event["id"],
        kind=event["type"],
        customer=str(subject.get("customer") or ""),
        object_id=str(subject.get("id") or ""),
        happened_at=datetime.fromtimestamp(event["created"], UTC),
    )
