"""Revocation and suspension: refused at once here, told to every other process within five seconds."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from django.test import Client

from saas.lib import valkey
from saas.lib.errors import Forbidden, Refusal, Unauthenticated
from tenants import access, actions
from tenants.audit import SYSTEM, Actor
from tenants.models import ApiKey, AuditEntry, Tenant
from tenants.scope import scope

SECONDS = 5.0


@pytest.fixture
def heard() -> Any:
    """Messages on the revocation channel."""
    channel = valkey.client().pubsub(ignore_subscribe_messages=True)
    channel.subscribe(actions.REVOCATIONS)
    channel.get_message(timeout=1)

    def next_for(tenant: Any) -> dict[str, str]:
        start = time.monotonic()
        while time.monotonic() - start < SECONDS:
            message = channel.get_message(timeout=0.2)
            if message and (found := json.loads(message["data"]))["tenant"] == str(tenant.pk):
                return found  # type: ignore[no-any-return]
        raise AssertionError("no message within five seconds")

    yield next_for
    channel.close()


def test_it_works(acme: Any, people: Any, alice: Client, heard: Any) -> None:
    secret = people.key(acme)
    key_id = access.authenticate_key(secret).key_id
    start = time.monotonic()
    assert alice.post(f"/t/{acme.slug}/keys/{key_id}/revoke/").status_code == 302
    with pytest.raises(Unauthenticated):
        access.authenticate_key(secret)
    assert heard(acme) == {"kind": "key", "tenant": str(acme.pk), "id": key_id}
    assert time.monotonic() - start < SECONDS


def test_a_second_revocation_changes_nothing(acme: Any, people: Any) -> None:
    people.key(acme)
    with scope(acme):
        key = ApiKey.objects.of(acme).select_related("tenant").get()
        actions.revoke_key(key, actor=SYSTEM)
        actions.revoke_key(key, actor=SYSTEM)
        assert AuditEntry.objects.of(acme).filter(action="key.revoked").count() == 1


def test_a_rolled_back_revocation_is_not_announced(acme: Any, people: Any, heard: Any) -> None:
    secret = people.key(acme)
    with pytest.raises(RuntimeError), scope(acme):
        actions.revoke_key(ApiKey.objects.of(acme).select_related("tenant").get(), actor=SYSTEM)
        raise RuntimeError
    assert access.authenticate_key(secret)
    with scope(acme):  # control: the next one is the first that is heard
        actions.announce_revocation("endpoint", acme, "control")
    assert heard(acme)["id"] == "control"


def test_suspension_closes_keys_and_pages_and_restoring_opens_them(
    acme: Any, people: Any, alice: Client, heard: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr("saas.lib.background._send", lambda task, payload: sent.append((task, payload)))
    secret = people.key(acme)
    operator = Actor("operator", "op", "op@example.test")
    assert alice.get(f"/t/{acme.slug}/team/").status_code == 200
    start = time.monotonic()
    actions.suspend_tenant(acme, reason="unpaid for 60 days", actor=operator)
    with pytest.raises(Forbidden) as refused:
        access.authenticate_key(secret)
    assert refused.value.code == "tenant_suspended"
    assert alice.get(f"/t/{acme.slug}/team/").status_code == 403
    assert heard(acme)["kind"] == "tenant"
    assert time.monotonic() - start < SECONDS
    assert sent == [("modeling.stop_tenant_jobs", {"tenant_id": str(acme.pk)})]
    actions.restore_tenant(acme, reason="paid", actor=operator)
    assert access.authenticate_key(secret).tenant == acme
    assert alice.get(f"/t/{acme.slug}/team/").status_code == 200
    with scope(acme):
        found = AuditEntry.objects.of(acme).filter(actor_kind="operator").values_list("action", flat=True)
        assert list(found.order_by("seq")) == ["tenant.suspended", "tenant.restored"]


def test_suspension_needs_a_reason_and_happens_once(acme: Any) -> None:
    with pytest.raises(Refusal):
        actions.suspend_tenant(acme, reason=" ", actor=SYSTEM)
    with scope(acme):
        assert Tenant.objects.get(pk=acme.pk).state == "active"
    for _ in range(2):
        actions.suspend_tenant(acme, reason="why", actor=SYSTEM)
    with scope(acme):
        assert AuditEntry.objects.of(acme).filter(action="tenant.suspended").count() == 1


def test_a_removed_member_is_out_with_the_next_click(
    acme: Any, people: Any, alice: Client, bob: Client
) -> None:
    assert bob.get(f"/t/{acme.slug}/team/").status_code == 200
    with scope(acme):
        from tenants.models import Member

        found = Member.objects.of(acme).get(user=people.user("bob"))
    assert alice.post(f"/t/{acme.slug}/team/{found.pk}/remove/").status_code == 302
    assert bob.get(f"/t/{acme.slug}/team/").status_code == 404
