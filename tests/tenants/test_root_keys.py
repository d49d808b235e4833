"""Root keys: file, AWS KMS and Vault wrap by one interface, bound to a place; a service that is gone loses nothing."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as live

from tenants import root_keys, root_rotation, vault, vault_keys
from tenants.models import DataKey
from tenants.root_keys import Bound, FileKey, KeyDestroyed, KeyRefused, KeysUnreachable, RootKey
from tenants.scope import scope
from tests.tenants import kms, transit_server
from tests.tenants.transit_server import Key, Vault

HERE, ELSEWHERE = Bound(uuid.UUID(int=7), 1), Bound(uuid.UUID(int=8), 1)


@pytest.fixture(scope="module")
def aws() -> Iterator[Any]:
    with kms.serving() as client:
        yield client


@pytest.fixture
def hashi(settings: Any, tmp_path: Path) -> Iterator[Vault]:
    with transit_server.serving() as server:
        server.keys["cloister"] = Key()
        settings.VAULT_TOKEN_FILE = tmp_path / "token"
        settings.VAULT_TOKEN_FILE.write_text(f"{server.token}\n")
        yield server


@pytest.fixture
def every_kind(aws: Any, hashi: Vault, tmp_path: Path) -> list[RootKey]:
    return [
        FileKey(tmp_path / "root.key"),
        root_keys.named(f"aws-kms:{kms.new_key(aws)}"),
        root_keys.named(f"vault:{hashi.address}/cloister"),
    ]


def refused(key: RootKey) -> None:
    with pytest.raises(KeyRefused):
        key.wrap(bytes(32), HERE)


def test_every_kind_wraps_in_its_place_and_rotates(every_kind: list[RootKey]) -> None:
    for key in every_kind:
        secret = os.urandom(32)
        wrapped, root_id = key.wrap(secret, HERE)
        assert root_id == key.id
        assert secret not in wrapped
        assert key.unwrap(wrapped, HERE, root_id=root_id) == secret
        for bound in (ELSEWHERE, Bound(HERE.tenant_id, 2)):
            with pytest.raises(KeyDestroyed):
                key.unwrap(wrapped, bound, root_id=root_id)
        key.rotate()
        assert key.knows(root_id)
        assert key.unwrap(wrapped, HERE, root_id=root_id) == secret
        again, new_id = key.rewrap(wrapped, HERE, root_id=root_id)
        assert again != wrapped
        key.retire()
        assert key.unwrap(again, HERE, root_id=new_id) == secret
        root_keys.prove(key)


def test_a_file_is_private_and_its_earlier_key_goes_when_it_is_retired(tmp_path: Path) -> None:
    key = FileKey(tmp_path / "root.key")
    wrapped, root_id = key.wrap(bytes(32), HERE)
    assert key.file.stat().st_mode & 0o777 == 0o600
    assert len(key.file.read_bytes()) == 32
    key.rotate()
    assert key.id != root_id
    assert key.retire() == 1
    assert not key.knows(root_id)
    with pytest.raises(KeyDestroyed):
        key.unwrap(wrapped, HERE, root_id=root_id)
    key.file.chmod(0o644)
    with pytest.raises(PermissionError):
        key.key()


def test_what_a_service_refuses_is_said(aws: Any, hashi: Vault) -> None:
    arn = kms.new_key(aws)
    key = root_keys.named(f"aws-kms:{arn}")
    kms.disable(aws, arn)
    with pytest.raises(KeyRefused, match="DisabledException"):
        key.wrap(bytes(32), HERE)
    kms.enable(aws, arn)
    key.wrap(bytes(32), HERE)
    refused(root_keys.named(f"aws-kms:{arn[:-4]}0000"))  # no such key
    ours = root_keys.named(f"vault:{hashi.address}/cloister")
    wrapped, root_id = ours.wrap(bytes(32), HERE)
    hashi.denied.add("cloister")
    refused(ours)
    hashi.denied.clear()
    ours.rotate()
    hashi.keys["cloister"].min_decryption_version = 2
    with pytest.raises(KeyRefused):
        ours.unwrap(wrapped, HERE, root_id=root_id)
    refused(root_keys.named(f"vault:{hashi.address}/absent"))
    Path(live.VAULT_TOKEN_FILE).unlink()
    refused(ours)


def test_a_vault_key_that_ignores_its_context_is_not_taken(hashi: Vault) -> None:
    hashi.keys["plain"] = Key(derived=False)
    with pytest.raises(KeyRefused, match="derived=true"):
        root_keys.prove(root_keys.named(f"vault:{hashi.address}/plain"))


def test_vault_is_asked_once_more_and_no_oftener(hashi: Vault, settings: Any) -> None:
    key = root_keys.named(f"vault:{hashi.address}/cloister")
    hashi.fail_next = 1
    key.wrap(bytes(32), HERE)
    hashi.fail_next, before = 2, len(hashi.calls)
    with pytest.raises(KeysUnreachable):
        key.wrap(bytes(32), HERE)
    assert len(hashi.calls) - before == 2
    settings.VAULT_NAMESPACE = hashi.namespace = "team-a"
    key.wrap(bytes(32), HERE)
    settings.VAULT_NAMESPACE = ""
    refused(key)


def test_names_that_mean_no_key() -> None:
    for name in ("", "file:", "aws-kms:alias/x", "vault:ftp://x/transit/k", "pkcs11:x"):
        with pytest.raises(ValueError, match=r"Name the key|A root key is"):
            root_keys.named(name)


def test_an_unreachable_service_refuses_and_loses_nothing(acme: Any, settings: Any, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"vault:http://127.0.0.1:{taken.getsockname()[1]}/transit/cloister"
        made = vault.put(acme, "upload", b"kept")
        with scope(acme):
            rows = DataKey.objects.of(acme)
            before = rows.values("root_id", "wrapped").get(generation=1)
            (tmp_path / "token").write_text("t")
            settings.VAULT_TOKEN_FILE = tmp_path / "token"
            settings.ROOT_KEY_PREVIOUS = [address]
            away = {"root_id": root_keys.named(address).id, "wrapped": b"vault:v1:AAAA"}
            rows.filter(generation=1).update(**away)
        vault_keys.forget()
        with pytest.raises(KeysUnreachable) as refusal:
            vault.get(made)
        assert (refusal.value.status, refusal.value.code) == (503, "keys_unreachable")
        settings.ROOT_KEY = address
        assert root_keys._state() == "cannot be reached"
    with scope(acme):
        DataKey.objects.of(acme).filter(generation=1).update(**before)
    settings.ROOT_KEY, settings.ROOT_KEY_PREVIOUS = f"file:{live.ROOT_KEY_FILE}", []
    vault_keys.forget()
    assert vault.get(made) == b"kept"
    assert root_keys._state() == "ok"


def test_all_tenants_move_to_another_root_key(
    people: Any, aws: Any, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the file to KMS and back; killed after the first tenant, everything opens all the while."""
    settings.ROOT_KEY = f"file:{tmp_path / 'root.key'}"
    acme, globex = people.acme, people.globex
    wrapped_by_it = [acme.pk, globex.pk]  # and nobody else
    monkeypatch.setattr(root_rotation, "_tenants", lambda: wrapped_by_it)
    made = [vault.put(tenant, "upload", b"kept") for tenant in (acme, globex)]
    file, arn = settings.ROOT_KEY, f"aws-kms:{kms.new_key(aws)}"
    for present, former in ((arn, file), (file, arn)):
        settings.ROOT_KEY, settings.ROOT_KEY_PREVIOUS = present, [former]
        half = root_rotation.rotate(is_new=False)
        assert next(half).tenants == 1
        half.close()
        vault_keys.forget()
        assert [vault.get(one) for one in made] == [b"kept", b"kept"]
        *_, last = root_rotation.rotate(is_new=False)
        assert last.keys >= 4
        settings.ROOT_KEY_PREVIOUS = []
        vault_keys.forget()
        assert [vault.get(one) for one in made] == [b"kept", b"kept"]
    before = root_keys.installation().id
    list(root_rotation.rotate(is_new=True))
    vault_keys.forget()
    assert [vault.get(one) for one in made] == [b"kept", b"kept"]
    assert not root_keys.installation().knows(before)  # the old file is gone
