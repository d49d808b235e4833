"""A tenant's own key: proven before it is taken, obeyed when it refuses, and no address is ever typed."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from saas.lib import valkey
from saas.lib.errors import Conflict, Refusal
from tenants import actions, own_keys, root_keys, rotation, vault, vault_keys
from tenants.audit import Actor
from tenants.models import AuditEntry, DataKey, KeyRotation, OwnKey, Tenant
from tenants.root_keys import KeyRefused
from tenants.scope import scope
from tests.tenants import kms, transit_server
from tests.tenants.transit_server import Key, Vault

OWNER = Actor("user", "1", "owner@example.test")
PLACE = f"aws-kms:{kms.REGION}"


@pytest.fixture(scope="module")
def aws() -> Iterator[Any]:
    with kms.serving() as client:
        yield client


@pytest.fixture
def arn(aws: Any, settings: Any) -> str:
    settings.OWN_KEYS = [PLACE]
    return kms.new_key(aws)


@pytest.fixture
def hashi(settings: Any, tmp_path: Path) -> Iterator[Vault]:
    with transit_server.serving() as server:
        settings.VAULT_TOKEN_FILE = tmp_path / "token"
        settings.OWN_KEYS = [f"vault:bank={server.address}"]
        (tmp_path / "token.bank").write_text(server.token)
        yield server


def finish(tenant: Tenant) -> None:
    """The background's part of the rotation that runs."""
    with scope(tenant):
        running = KeyRotation.objects.of(tenant).get(state="running")
    assert rotation.run(tenant.pk, running.pk, is_stopping=lambda: False)


def taken(tenant: Tenant, arn: str) -> None:
    with scope(tenant):
        own_keys.take(tenant, OWNER, place=PLACE, name=arn)
    finish(tenant)


def asked(tenant: Tenant) -> bool:
    """What the watch does for this tenant; whether the answer changed. (Other tests' tenants have keys too.)"""
    with scope(tenant):
        own = own_keys.in_use(tenant)
        assert own is not None
        return own_keys.check(own)


def actions_of(tenant: Tenant) -> list[str]:
    with scope(tenant):
        entries = AuditEntry.objects.of(tenant).order_by("seq")
        return [one for one in entries.values_list("action", flat=True) if one.startswith("own_key")]


def test_everything_is_wrapped_by_the_own_key_and_ours_is_destroyed(
    acme: Any, globex: Any, aws: Any, arn: str
) -> None:
    before, theirs = vault.put(acme, "upload", b"before"), vault.put(globex, "upload", b"theirs")
    derived = vault.derive(acme, "audit")
    taken(acme, arn)
    after = vault.put(acme, "upload", b"after")
    with scope(acme):
        own = own_keys.in_use(acme)
        assert own is not None
        assert own.state == OwnKey.State.ACTIVE
        roots = dict(DataKey.objects.of(acme).values_list("generation", "root_id"))
    assert roots[2] == own.root_id
    assert sorted(roots) == [0, 2]  # 0 only derives
    kms.disable(aws, arn)
    vault_keys.forget()
    for one in (before, after):
        with pytest.raises(KeyRefused) as refusal:
            vault.get(one)
        assert (refusal.value.status, refusal.value.code) == (403, "own_key_refused")
    with pytest.raises(KeyRefused):
        vault.put(acme, "upload", b"new")
    assert vault.derive(acme, "audit") == derived  # the audit log goes on
    assert vault.get(theirs) == b"theirs"
    kms.enable(aws, arn)
    vault_keys.forget()
    assert [vault.get(one) for one in (before, after)] == [b"before", b"after"]


def test_the_watch_tells_everybody_and_restores_by_itself(acme: Any, aws: Any, arn: str) -> None:
    made = vault.put(acme, "upload", b"kept")
    taken(acme, arn)
    assert vault.get(made) == b"kept"  # and its key is in this process's memory
    assert not asked(acme)
    kms.disable(aws, arn)
    channel = valkey.client().pubsub(ignore_subscribe_messages=True)
    channel.subscribe(actions.REVOCATIONS)
    channel.get_message(timeout=1)
    assert own_keys.watch() >= 1
    heard = [one["data"].decode() for one in iter(lambda: channel.get_message(timeout=0.5), None) if one]
    channel.close()
    assert any(str(acme.pk) in one and '"tenant"' in one for one in heard)
    with pytest.raises(KeyRefused):
        vault.get(made)
    with scope(acme):
        assert own_keys.is_refused(acme)
        with pytest.raises(KeyRefused):
            own_keys.leave(acme, OWNER)
    assert not asked(acme)
    kms.enable(aws, arn)
    assert asked(acme)
    assert vault.get(made) == b"kept"
    assert actions_of(acme) == ["own_key.taken", "own_key.refused", "own_key.restored"]


def test_the_way_back_to_ours(acme: Any, aws: Any, arn: str) -> None:
    made = vault.put(acme, "upload", b"kept")
    taken(acme, arn)
    with scope(acme):
        with pytest.raises(Conflict):
            own_keys.take(acme, OWNER, place=PLACE, name=kms.new_key(aws))
        own_keys.leave(acme, OWNER)
    finish(acme)
    kms.disable(aws, arn)
    vault_keys.forget()
    assert vault.get(made) == b"kept"
    with scope(acme):
        assert own_keys.in_use(acme) is None
        with pytest.raises(Conflict):
            own_keys.leave(acme, OWNER)


def test_a_key_in_vault(acme: Any, hashi: Vault) -> None:
    hashi.keys["acme"], hashi.keys["plain"] = Key(), Key(derived=False)
    with scope(acme), pytest.raises(Refusal, match="derived=true"):
        own_keys.take(acme, OWNER, place="vault:bank", name="plain")
    made = vault.put(acme, "upload", b"kept")
    with scope(acme):
        own_keys.take(acme, OWNER, place="vault:bank", name="acme")
    finish(acme)
    hashi.denied.add("acme")
    assert asked(acme)
    with pytest.raises(KeyRefused):
        vault.get(made)
    hashi.denied.clear()
    assert asked(acme)
    assert vault.get(made) == b"kept"


def test_a_tenant_never_names_an_address(acme: Any, arn: str, hashi: Vault) -> None:
    hashi.keys["acme"] = Key()
    tried = [
        ("vault:bank", "http://169.254.169.254/latest"), ("vault:bank", "../sys/seal"), ("vault:bank", "a/b"),
        ("vault:bank", ""), ("vault:other", "acme"), (PLACE, arn), ("file:/etc/passwd", "x"),
        ("vault:http://127.0.0.1:1/transit", "acme"),
    ]  # fmt: skip
    before = len(hashi.calls)
    for place, name in tried:
        with scope(acme), pytest.raises(Refusal):
            own_keys.take(acme, OWNER, place=place, name=name)
    assert len(hashi.calls) == before  # nobody was asked
    with scope(acme):
        assert not OwnKey.objects.of(acme).exists()
        assert not KeyRotation.objects.of(acme).exists()
        own_keys.take(
            acme, OWNER, place="vault:bank", name="acme"
        )  # the control: it is asked where it may be
    assert len(hashi.calls) > before


def test_a_key_elsewhere_or_refused_is_not_taken(acme: Any, aws: Any, arn: str) -> None:
    for name in (arn.replace(kms.REGION, "us-east-1"), "alias/mine", arn.rpartition("/")[2], f"{arn}\n{arn}"):
        with scope(acme), pytest.raises(Refusal, match="ARN"):
            own_keys.take(acme, OWNER, place=PLACE, name=name)
    kms.disable(aws, arn)
    with scope(acme), pytest.raises(Refusal, match="did not wrap"):
        own_keys.take(acme, OWNER, place=PLACE, name=arn)
    with scope(acme):
        assert not OwnKey.objects.of(acme).exists()


def test_a_key_may_demand_its_tenant_s_reference(
    acme: Any, globex: Any, hashi: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With such a policy nobody but this tenant can take the key, and the tenant itself still can."""
    hashi.keys["ours"] = Key()
    reference, answer = root_keys.tenant_reference(acme.pk), hashi._call

    def demanding(verb: str, key: Key, body: dict[str, Any], *, is_rotate: bool) -> dict[str, Any]:
        if reference.encode() not in base64.b64decode(body.get("context", "")):
            raise transit_server.Fault(403, "permission denied")
        return answer(verb, key, body, is_rotate=is_rotate)

    monkeypatch.setattr(hashi, "_call", demanding)
    with scope(globex), pytest.raises(Refusal) as refused:
        own_keys.take(globex, OWNER, place="vault:bank", name="ours")
    assert refused.value.code == "own_key_unproven"
    with scope(acme):
        own_keys.take(acme, OWNER, place="vault:bank", name="ours")
    finish(acme)
    assert vault.get(vault.put(acme, "upload", b"ours")) == b"ours"
