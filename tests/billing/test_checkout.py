"""Ordering a plan: checkout over HTTP, webhooks in any order, the plan in force."""

from __future__ import annotations

import urllib.error
import urllib.parse
import urllib.request
from typing import Any

import pytest

from billing import actions, queries
from billing.models import StripeEvent, Subscription
from tenants.scope import scope
from tests.billing.conftest import post_event


def press(url: str, button: str) -> str:
    """Press a button on one of the stand-in's pages; returns where it leads (without going there)."""

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *args: Any) -> None:
            return None

    opener = urllib.request.build_opener(Stay)
    data = urllib.parse.urlencode({"press": button}).encode()
    with pytest.raises(urllib.error.HTTPError) as redirect:
        opener.open(urllib.request.Request(url, data, method="POST"), timeout=10)
    assert redirect.value.code == 303
    return str(redirect.value.headers["Location"])


def order(browser: Any, tenant: Any, plan: str) -> str:
    """The checkout address of an order."""
    response = browser.post(f"/t/{tenant.slug}/billing/order/", {"plan": plan})
    assert response.status_code == 302
    return str(response["Location"])


def test_it_works(standin: Any, alice: Any, acme: Any) -> None:
    back = press(order(alice, acme, "team"), "pay")
    assert back.endswith("/billing/?paid=1")
    standin.sender.deliver()
    actions.process_events()
    with scope(acme):
        assert queries.plan_of(acme).code == "team"
    page = alice.get(f"/t/{acme.slug}/billing/?paid=1").content.decode()
    assert "stand-in" in page
    assert "Team" in page


def test_a_member_cannot_order(standin: Any, bob: Any, acme: Any) -> None:
    assert bob.post(f"/t/{acme.slug}/billing/order/", {"plan": "team"}).status_code == 403


def test_a_stranger_gets_404(standin: Any, carol: Any, acme: Any) -> None:
    assert carol.post(f"/t/{acme.slug}/billing/order/", {"plan": "team"}).status_code == 404
    assert carol.get(f"/t/{acme.slug}/billing/").status_code == 404


def test_an_unknown_plan_is_refused(standin: Any, alice: Any, acme: Any) -> None:
    assert alice.post(f"/t/{acme.slug}/billing/order/", {"plan": "gold"}).status_code == 400


def test_leaving_the_checkout_changes_nothing(standin: Any, alice: Any, acme: Any) -> None:
    press(order(alice, acme, "team"), "leave")
    assert standin.sender.events == []
    with scope(acme):
        assert queries.plan_of(acme).code == "free"


@pytest.mark.parametrize("turns", [[0, 1], [1, 0], [1, 1, 0, 0, 1]])
def test_order_and_repeats_of_webhooks_do_not_matter(
    standin: Any, alice: Any, acme: Any, turns: list[int]
) -> None:
    press(order(alice, acme, "business"), "pay")
    for turn in turns:
        standin.sender.deliver([turn])
        actions.process_events()
    with scope(acme):
        row = Subscription.objects.of(acme).get()
        assert (row.plan, row.status) == ("business", "active")
    known = StripeEvent.objects.filter(event_id__in=[event["id"] for event in standin.sender.events])
    assert known.count() == len(standin.sender.events)


def test_an_unsigned_webhook_is_refused(standin: Any, alice: Any, acme: Any) -> None:
    press(order(alice, acme, "team"), "pay")
    event = standin.sender.events[0]
    assert post_event(event, secret="whsec_wrong").status_code == 400
    assert not StripeEvent.objects.filter(event_id=event["id"]).exists()


def test_cancelling_ends_the_plan(standin: Any, alice: Any, acme: Any) -> None:
    press(order(alice, acme, "team"), "pay")
    actions.sync_customer(standin.state.all("customer")[0]["id"])
    portal = alice.post(f"/t/{acme.slug}/billing/portal/")["Location"]
    press(portal, "cancel")
    standin.sender.deliver()
    actions.process_events()
    with scope(acme):
        assert queries.plan_of(acme).code == "free"
    assert "Renews" not in alice.get(f"/t/{acme.slug}/billing/").content.decode()


def test_reconciling_heals_a_lost_webhook(standin: Any, alice: Any, acme: Any) -> None:
    press(order(alice, acme, "team"), "pay")
    with scope(acme):
        assert queries.plan_of(acme).code == "free"
    customer = standin.state.all("customer")[0]["id"]
    actions.sync_customer(customer)
    with scope(acme):
        assert queries.plan_of(acme).code == "team"


def test_a_customer_that_stripe_refuses_holds_up_nobody(
    standin: Any, alice: Any, acme: Any, globex: Any
) -> None:
    from billing import gateway

    with scope(globex):
        Subscription.objects.of(globex).create(
            plan="team", status="active", stripe_customer=f"cus_gone_{globex.slug}"
        )
        actions.record_usage(globex, "predictions", 5, "gone")
    press(order(alice, acme, "team"), "pay")
    lost = standin.sender.events[0] | {"id": f"evt_gone_{acme.slug}", "created": 1}
    lost["data"] = {"object": {"id": "in_1", "customer": f"cus_gone_{globex.slug}"}}
    assert post_event(lost).status_code == 200
    standin.sender.deliver()
    actions.process_events()
    with scope(acme):
        assert queries.plan_of(acme).code == "team"
        actions.record_usage(acme, "predictions", 7, "fine")
    waiting = StripeEvent.objects.get(event_id=lost["id"])
    assert (waiting.processed_at, waiting.attempts) == (None, 1)
    gateway.ensure_catalogue()
    actions.report_usage()
    values = [row["payload"]["value"] for row in standin.state.all("billing.meter_event")]
    assert values == ["7"]
