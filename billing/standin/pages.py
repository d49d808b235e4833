"""The two pages a payer would see at Stripe: checkout and portal, with a button for each thing that can happen."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from billing.standin import state as book

if TYPE_CHECKING:
    from billing.standin.server import Server

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Stripe stand-in</title><style>body{{font:16px/1.5 system-ui;max-width:34rem;margin:4rem auto;padding:0 1rem}}
.note{{border:1px solid #b45309;border-radius:6px;padding:.75rem 1rem;background:#fffbeb;color:#78350f}}
button{{font:inherit;padding:.5rem 1rem;margin:.25rem .5rem .25rem 0;border-radius:6px;border:1px solid #14532d;
background:#14532d;color:#fff}}</style>
<p class="note">This is a stand-in for Stripe, used because no Stripe key is set. No money moves.</p>
<h1>{title}</h1><p>{text}</p><form method="post">{buttons}</form></html>"""


def _page(title: str, text: str, buttons: dict[str, str]) -> str:
    made = "".join(f'<button name="press" value="{name}">{label}</button>' for name, label in buttons.items())
    return PAGE.format(title=html.escape(title), text=html.escape(text), buttons=made)


def _split(path: str) -> tuple[str, str]:
    parts = path.strip("/").split("/")
    if len(parts) != 2:
        raise book.Missing(path)
    return parts[0], parts[1]


def show(server: Server, path: str) -> str:
    """The page at a path; raises Missing."""
    kind, identity = _split(path)
    if kind == "checkout":
        session = server.state.get("checkout.session", identity)
        price = server.state.get("price", session["line_items"][0]["price"])
        text = f"{price.get('nickname', 'Subscription')}: ${price['unit_amount'] / 100:,.2f} a month."
        return _page("Checkout", text, {"pay": "Pay with a test card", "leave": "Go back without paying"})
    session = server.state.get("billing_portal.session", identity)
    rows = server.state.all("subscription", customer=session["customer"])
    text = f"Subscription: {rows[0]['status']}." if rows else "No subscription."
    buttons = {"fail": "Let the next payment fail", "settle": "Pay the open invoice", "cancel": "Cancel now"}
    return _page("Customer portal", text, (buttons if rows else {}) | {"leave": "Go back"})


def press(server: Server, path: str, values: dict[str, str]) -> str:
    """Do what a button says; returns the address to go to."""
    kind, identity = _split(path)
    pressed = values.get("press", "leave")
    if kind == "checkout":
        return _checkout(server, server.state.get("checkout.session", identity), pressed)
    session = server.state.get("billing_portal.session", identity)
    rows = server.state.all("subscription", customer=session["customer"])
    if rows and pressed in PORTAL:
        PORTAL[pressed](server, rows[0])
    return str(session["return_url"])


def _checkout(server: Server, session: dict[str, Any], pressed: str) -> str:
    if pressed != "pay" or session["status"] != "open":
        return str(session.get("cancel_url") or session["success_url"])
    price = server.state.get("price", session["line_items"][0]["price"])
    for old in server.state.all("subscription", customer=session["customer"], status="active"):
        cancel(server, old)
    metadata = session.get("subscription_data", {}).get("metadata", {})
    made = book.subscribe(server.state, session["customer"], price, metadata)
    done = server.state.change(
        "checkout.session", session["id"], status="complete", payment_status="paid", subscription=made["id"]
    )
    server.sender.send("checkout.session.completed", done)
    server.sender.send("customer.subscription.created", made)
    return str(session["success_url"])


def _fail(server: Server, subscription: dict[str, Any]) -> None:
    invoice = book.bill(server.state, subscription, status="open")
    changed = server.state.change("subscription", subscription["id"], status="past_due")
    server.sender.send("invoice.payment_failed", invoice)
    server.sender.send("customer.subscription.updated", changed)


def _settle(server: Server, subscription: dict[str, Any]) -> None:
    for invoice in server.state.all("invoice", subscription=subscription["id"], status="open"):
        paid = server.state.change("invoice", invoice["id"], status="paid", amount_paid=invoice["amount_due"])
        server.sender.send("invoice.paid", paid)
    changed = server.state.change("subscription", subscription["id"], status="active")
    server.sender.send("customer.subscription.updated", changed)


def cancel(server: Server, subscription: dict[str, Any]) -> None:
    """End a subscription now."""
    changed = server.state.change("subscription", subscription["id"], status="canceled")
    server.sender.send("customer.subscription.deleted", changed)


PORTAL = {"fail": _fail, "settle": _settle, "cancel": cancel}
