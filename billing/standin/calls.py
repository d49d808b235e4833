"""The Stripe calls that the stand-in speaks, each with the SDK's parameter type it is checked against."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from stripe import params
from stripe.params import billing as billing_params
from stripe.params import billing_portal as portal_params
from stripe.params import checkout as checkout_params

from billing.standin import pages
from billing.standin.check import BadParameter
from billing.standin.state import Missing

if TYPE_CHECKING:
    from billing.standin.server import Server

Values = dict[str, Any]


def make_customer(server: Server, _: str, values: Values) -> Values:
    """POST /v1/customers."""
    return server.state.put("customer", "cus", values)


def get_customer(server: Server, identity: str, _: Values) -> Values:
    """GET /v1/customers/{id}."""
    return server.state.get("customer", identity)


def make_product(server: Server, _: str, values: Values) -> Values:
    """POST /v1/products."""
    return server.state.put("product", "prod", values)


def make_price(server: Server, _: str, values: Values) -> Values:
    """POST /v1/prices."""
    if server.state.all("price", lookup_key=values.get("lookup_key")):
        raise BadParameter("A price already uses that lookup key.", "lookup_key")
    if "unit_amount" in values:
        values["unit_amount"] = int(values["unit_amount"])
    return server.state.put("price", "price", {"active": True, "type": "recurring", **values})


def list_prices(server: Server, _: str, values: Values) -> Values:
    """GET /v1/prices?lookup_keys[]=…"""
    keys = values.get("lookup_keys", [])
    return _list(
        [row for row in server.state.all("price") if not keys or row.get("lookup_key") in keys], "/v1/prices"
    )


def make_meter(server: Server, _: str, values: Values) -> Values:
    """POST /v1/billing/meters."""
    if server.state.all("billing.meter", event_name=values["event_name"]):
        raise BadParameter("A meter already uses that event name.", "event_name")
    return server.state.put("billing.meter", "mtr", {"status": "active", **values})


def list_meters(server: Server, _: str, values: Values) -> Values:
    """GET /v1/billing/meters."""
    return _list(server.state.all("billing.meter"), "/v1/billing/meters")


def make_meter_event(server: Server, _: str, values: Values) -> Values:
    """POST /v1/billing/meter_events; an identifier counts once."""
    if not server.state.all("billing.meter", event_name=values["event_name"]):
        raise BadParameter("No active meter has that event name.", "event_name")
    server.state.get("customer", values["payload"]["stripe_customer_id"])
    identifier = values.get("identifier")
    if identifier and server.state.all("billing.meter_event", identifier=identifier):
        raise BadParameter("An event already exists with that identifier.", "identifier")
    return server.state.put("billing.meter_event", "mev", values)


def make_checkout(server: Server, _: str, values: Values) -> Values:
    """POST /v1/checkout/sessions (mode subscription)."""
    for line in values.get("line_items", []):
        server.state.get("price", line["price"])
    server.state.get("customer", values["customer"])
    made = server.state.put(
        "checkout.session", "cs_test", {"status": "open", "payment_status": "unpaid", **values}
    )
    return server.state.change("checkout.session", made["id"], url=f"{server.base}/checkout/{made['id']}")


def make_portal(server: Server, _: str, values: Values) -> Values:
    """POST /v1/billing_portal/sessions."""
    server.state.get("customer", values["customer"])
    made = server.state.put("billing_portal.session", "bps", values)
    return server.state.change("billing_portal.session", made["id"], url=f"{server.base}/portal/{made['id']}")


def get_subscription(server: Server, identity: str, _: Values) -> Values:
    """GET /v1/subscriptions/{id}."""
    return server.state.get("subscription", identity)


def cancel_subscription(server: Server, identity: str, _: Values) -> Values:
    """DELETE /v1/subscriptions/{id}; one that has ended is refused, as Stripe does."""
    found = server.state.get("subscription", identity)
    if found["status"] == "canceled":
        raise Missing(identity)
    pages.cancel(server, found)
    return server.state.get("subscription", identity)


def list_subscriptions(server: Server, _: str, values: Values) -> Values:
    """GET /v1/subscriptions?customer=…; an unknown customer is refused."""
    if values.get("customer"):
        server.state.get("customer", values["customer"])
    return _list(server.state.all("subscription", customer=values.get("customer")), "/v1/subscriptions")


def list_invoices(server: Server, _: str, values: Values) -> Values:
    """GET /v1/invoices?customer=…"""
    return _list(server.state.all("invoice", customer=values.get("customer")), "/v1/invoices")


def _list(rows: list[Values], url: str) -> Values:
    return {"object": "list", "data": rows, "has_more": False, "url": url}


Handler = Callable[["Server", str, Values], Values]
CALLS: list[tuple[str, str, Handler, type | None]] = [
    ("POST", r"/customers", make_customer, params.CustomerCreateParams),
    ("GET", r"/customers/(\w+)", get_customer, None),
    ("POST", r"/products", make_product, params.ProductCreateParams),
    ("POST", r"/prices", make_price, params.PriceCreateParams),
    ("GET", r"/prices", list_prices, params.PriceListParams),
    ("POST", r"/billing/meters", make_meter, billing_params.MeterCreateParams),
    ("GET", r"/billing/meters", list_meters, billing_params.MeterListParams),
    ("POST", r"/billing/meter_events", make_meter_event, billing_params.MeterEventCreateParams),
    ("POST", r"/checkout/sessions", make_checkout, checkout_params.SessionCreateParams),
    ("POST", r"/billing_portal/sessions", make_portal, portal_params.SessionCreateParams),
    ("GET", r"/subscriptions/(\w+)", get_subscription, None),
    ("DELETE", r"/subscriptions/(\w+)", cancel_subscription, params.SubscriptionCancelParams),
    ("GET", r"/subscriptions", list_subscriptions, params.SubscriptionListParams),
    ("GET", r"/invoices", list_invoices, params.InvoiceListParams),
]


def find(method: str, path: str) -> tuple[Handler, str, type | None] | None:
    """The call for a method and path, the id in the path, and the parameter type."""
    for verb, pattern, handler, expected in CALLS:
        matched = re.fullmatch(pattern, path)
        if verb == method and matched:
            return handler, matched.group(1) if matched.groups() else "", expected
    return None
