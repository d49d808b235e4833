"""Asking for a tenant's deletion on its page: confirmations, the band, cancelling, the console, the mails."""

from __future__ import annotations

from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from django.test import Client

from modeling.actions import holds, tenant_erasing, tenant_erasure
from tenants.audit import SYSTEM, Actor
from tenants.models import AuditEntry, Tenant, TenantErasure
from tenants.scope import scope
from tests.make import PASSWORD


def page_of(tenant: Any) -> str:
    return f"/t/{tenant.slug}/settings/delete/"


def ask(browser: Client, tenant: Any, **changed: str) -> Any:
    body = {"do": "erase", "confirmation": tenant.slug, "password": PASSWORD}
    return browser.post(page_of(tenant), body | changed)


def log_of(tenant: Any) -> list[tuple[str, str]]:
    with scope(tenant):
        rows = AuditEntry.objects.of(tenant).filter(action__startswith="tenant.erasure").order_by("seq")
        return list(rows.values_list("action", "actor"))


def test_it_works(people: Any, alice: Any, vera: Any, acme: Any, settings: Any, mailoutbox: Any) -> None:
    settings.TENANT_GRACE_DAYS = 3
    shown = alice.get(page_of(acme)).content.decode()
    assert "in 3 days" in shown
    assert page_of(acme) in alice.get(f"/t/{acme.slug}/settings/").content.decode()
    assert ask(alice, acme).status_code == 302
    with scope(acme):
        row = TenantErasure.objects.of(acme).get()
    assert (row.due_at - row.requested_at).days in (2, 3)
    for path in ("", "data/", "settings/", "billing/"):
        for browser in (alice, vera):
            assert "This tenant will be deleted" in browser.get(f"/t/{acme.slug}/{path}").content.decode()
    people.join(acme, "olive", "owner")
    olive = people.browser("olive")
    assert "Cancel the deletion" in olive.get(page_of(acme)).content.decode()
    assert olive.post(page_of(acme), {"do": "cancel"}).status_code == 302
    assert "will be deleted" not in vera.get(f"/t/{acme.slug}/").content.decode()
    assert log_of(acme) == [
        ("tenant.erasure_requested", f"alice-{people.tag}@example.test"),
        ("tenant.erasure_withdrawn", f"olive-{people.tag}@example.test"),
    ]
    assert "will be deleted" in mailoutbox[0].subject
    assert page_of(acme) in mailoutbox[0].body
    assert sorted(one.to[0].split("-")[0] for one in mailoutbox) == ["alice", "alice", "olive"]
    assert not tenant_erasing.run(acme.pk)


@pytest.mark.parametrize("changed", [{"confirmation": "acme"}, {"password": "wrong"}, {"confirmation": ""}])
def test_what_was_typed_must_be_right(alice: Any, acme: Any, changed: dict[str, str]) -> None:
    answer = ask(alice, acme, **changed)
    assert answer.status_code == 400
    with scope(acme):
        assert not TenantErasure.objects.of(acme).exists()


def test_only_owners(bob: Any, vera: Any, carol: Any, acme: Any) -> None:
    for browser, status in ((bob, 403), (vera, 403), (carol, 404)):
        assert browser.get(page_of(acme)).status_code == status
        assert ask(browser, acme).status_code == status
        assert browser.post(page_of(acme), {"do": "cancel"}).status_code == status


def test_a_hold_is_shown_and_stops_it(alice: Any, acme: Any) -> None:
    with scope(acme):
        holds.place(acme, SYSTEM, reason="Case 17")
    shown = alice.get(page_of(acme)).content.decode()
    assert "Case 17" in shown
    assert 'name="password"' not in shown
    assert ask(alice, acme).status_code == 400
    assert log_of(acme) == []


def test_without_days_of_grace_it_is_due_at_once(alice: Any, acme: Any, settings: Any) -> None:
    settings.TENANT_GRACE_DAYS = 0
    settings.ENGINE_PATIENCE_SECONDS = 0.01
    assert "at once" in alice.get(page_of(acme)).content.decode()
    assert ask(alice, acme).status_code == 302
    tenant_erasing.run(acme.pk)
    assert alice.get(page_of(acme)).status_code == 404
    with pytest.raises(Exception, match="begun"):
        tenant_erasure.withdraw(acme, SYSTEM)


def test_operators_ask_in_an_owners_name(people: Any, alice: Any, acme: Any, mailoutbox: Any) -> None:
    user = people.user("olga")
    user.is_staff = True
    user.save()
    Authenticator.objects.create(user=user, type=Authenticator.Type.TOTP, data={"secret": "x"})
    olga = people.browser("olga")
    place = f"/console/tenants/tenant/{acme.pk}"
    assert "erase/" in olga.get(f"{place}/change/").content.decode()
    assert olga.get(f"{place}/erase/").status_code == 200
    wrong = olga.post(f"{place}/erase/", {"reason": "Asked by letter", "confirmation": "else"})
    assert "not the slug" in wrong.content.decode()
    sent = {"reason": "Asked by letter", "confirmation": acme.slug}
    assert olga.post(f"{place}/erase/", sent).status_code == 302
    assert "before" in olga.post(f"{place}/erase/", sent).content.decode()
    assert "will be deleted" in olga.get("/console/").content.decode()
    listed = olga.get("/console/tenants/tenanterasure/").content.decode()
    assert acme.slug in listed
    assert "Asked by letter" not in listed  # for the tenant's own people
    assert "Asked by letter" in alice.get(page_of(acme)).content.decode()
    assert "Asked by letter" in mailoutbox[0].body
    assert olga.post(f"{place}/keep/", {"reason": "A mistake"}).status_code == 302
    assert [action for action, _who in log_of(acme)] == [
        "tenant.erasure_requested",
        "tenant.erasure_withdrawn",
    ]
    with scope(acme):
        assert Tenant.objects.get(pk=acme.pk).erase_at is None
    with pytest.raises(Exception, match="Say why"):
        tenant_erasure.request(acme, Actor("operator", "1", "olga"))
