"""WebSocket tickets: one use, thirty seconds, and void once the key, member or tenant is."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from saas.lib import valkey
from saas.lib.errors import Forbidden, Unauthenticated
from tenants import access, actions
from tenants.audit import SYSTEM
from tenants.models import ApiKey, Member
from tenants.scope import scope


def test_it_works(acme: Any, api: Any) -> None:
    answer = api.post("/v1/tickets")
    assert answer.status_code == 200
    body = answer.json()
    assert body["object"] == "ticket"
    assert body["expires_in"] == 30
    caller = access.redeem_ticket(body["ticket"])
    assert (caller.tenant, caller.kind) == (acme, "key")
    with pytest.raises(Unauthenticated):  # one use
        access.redeem_ticket(body["ticket"])


def test_a_page_gets_one_for_its_member(acme: Any, vera: Client, carol: Client) -> None:
    ticket = vera.post(f"/t/{acme.slug}/tickets/").json()["ticket"]
    caller = access.redeem_ticket(ticket)
    assert (caller.tenant, caller.kind) == (acme, "user")
    assert carol.post(f"/t/{acme.slug}/tickets/").status_code == 404


def test_the_store_knows_the_hash_and_forgets_in_thirty_seconds(acme: Any, people: Any) -> None:
    ticket = access.issue_ticket(people.user("alice"), acme)
    assert valkey.client().get(f"cloister:ticket:{ticket}") is None
    assert 0 < valkey.client().ttl(access._ticket_key(ticket)) <= 30  # type: ignore[operator]


def test_a_ticket_falls_with_its_key_member_or_tenant(acme: Any, people: Any) -> None:
    of_key = access.issue_ticket(access.authenticate_key(people.key(acme)), acme)
    of_vera = access.issue_ticket(people.user("vera"), acme)
    of_bob = access.issue_ticket(people.user("bob"), acme)
    with scope(acme):
        actions.revoke_key(ApiKey.objects.of(acme).select_related("tenant").get(), actor=SYSTEM)
        vera = Member.objects.of(acme).select_related("user", "tenant").get(user=people.user("vera"))
        actions.remove_member(vera, actor=SYSTEM)
    for ticket in (of_key, of_vera, "unknown"):
        with pytest.raises(Unauthenticated):
            access.redeem_ticket(ticket)
    actions.suspend_tenant(acme, reason="test", actor=SYSTEM)
    with pytest.raises(Forbidden):
        access.redeem_ticket(of_bob)


def test_without_a_key_there_is_no_ticket() -> None:
    assert Client().post("/v1/tickets", "{}", "application/json").status_code == 401
