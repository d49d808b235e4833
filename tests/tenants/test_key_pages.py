"""The owners' page of keys: a password starts a rotation or takes an own key; one that refuses shows on every page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tenants import own_keys, rotation, vault
from tenants.models import AuditEntry, DataKey, KeyRotation
from tenants.scope import scope
from tests.make import PASSWORD
from tests.tenants import kms

PLACE = f"aws-kms:{kms.REGION}"


@pytest.fixture(scope="module")
def aws() -> Iterator[Any]:
    with kms.serving() as client:
        yield client


def send(browser: Any, tenant: Any, do: str, *, password: str = PASSWORD, **fields: str) -> Any:
    body = {"do": do, f"{do}-password": password} | {f"{do}-{name}": value for name, value in fields.items()}
    return browser.post(f"/t/{tenant.slug}/settings/encryption/", body)


def finish(tenant: Any) -> None:
    with scope(tenant):
        running = KeyRotation.objects.of(tenant).get(state="running")
    assert rotation.run(tenant.pk, running.pk, is_stopping=lambda: False)


def page(browser: Any, tenant: Any) -> str:
    answer = browser.get(f"/t/{tenant.slug}/settings/encryption/")
    assert answer.status_code == 200
    return str(answer.content.decode())


def test_an_owner_rotates_with_a_password(alice: Any, acme: Any) -> None:
    made = vault.put(acme, "upload", b"kept")
    assert send(alice, acme, "rotate", what="tenant", password="wrong").status_code == 400
    with scope(acme):
        assert not KeyRotation.objects.of(acme).exists()
    assert send(alice, acme, "rotate", what="tenant").status_code == 302
    assert "0 of 1" in page(alice, acme)
    assert send(alice, acme, "rotate", what="data").status_code == 400  # one at a time
    finish(acme)
    assert "number 2" in page(alice, acme)
    assert vault.get(made) == b"kept"
    with scope(acme):
        entry = AuditEntry.objects.of(acme).get(action="keys.rotation_started")
        assert entry.actor.startswith("alice")


def test_only_owners_see_it(bob: Any, vera: Any, carol: Any, acme: Any) -> None:
    for browser, status in ((bob, 403), (vera, 403), (carol, 404)):
        assert browser.get(f"/t/{acme.slug}/settings/encryption/").status_code == status
        assert send(browser, acme, "rotate", what="tenant").status_code == status
    with scope(acme):
        assert DataKey.objects.of(acme).count() == 2


def test_an_own_key_and_the_band_while_it_refuses(
    alice: Any, carol: Any, acme: Any, globex: Any, aws: Any, settings: Any
) -> None:
    assert "does not offer it" in page(alice, acme)
    settings.OWN_KEYS = [PLACE]
    arn = kms.new_key(aws)
    refused = send(alice, acme, "take", place=PLACE, name="alias/mine")
    assert refused.status_code == 400
    assert "Write the whole ARN" in refused.content.decode()
    assert send(alice, acme, "take", place=PLACE, name=arn).status_code == 302
    finish(acme)
    assert arn in page(alice, acme)
    kms.disable(aws, arn)
    with scope(acme):
        own = own_keys.in_use(acme)
        assert own is not None
        assert own_keys.check(own)
    for address in ("", "settings/", "data/", "models/"):
        answer = alice.get(f"/t/{acme.slug}/{address}")
        assert answer.status_code == 200
        assert "Your own key is not available to us." in answer.content.decode()
    assert "not available to us" not in carol.get(f"/t/{globex.slug}/settings/").content.decode()
    kms.enable(aws, arn)
    with scope(acme):
        assert own_keys.check(own_keys.in_use(acme))  # type: ignore[arg-type]
    assert "not available to us" not in alice.get(f"/t/{acme.slug}/settings/").content.decode()
    assert send(alice, acme, "leave").status_code == 302
    finish(acme)
    assert "our root key" in page(alice, acme)
