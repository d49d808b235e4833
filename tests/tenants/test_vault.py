"""The vault: objects come back to their tenant only, destroyed ones to nobody, and the disk holds no plaintext."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import transaction

from saas.lib.object_store import ObjectStore
from saas.lib.sealed import CHUNK_BYTES, SealBroken
from tenants import vault
from tenants.models import DataKey, ObjectKey, VaultObject
from tenants.scope import OutOfScope, scope

CANARY = b"canary: patient 4711 has a rare disease"


def sealed(store: ObjectStore, made: VaultObject) -> bytes:
    """The object's ciphertext as it lies in the store."""
    with store.open(vault.object_key(made)) as source:
        return source.read()


def lay(store: ObjectStore, made: VaultObject, data: bytes) -> None:
    """Put other bytes in the object's place."""
    sink = store.create(vault.object_key(made))
    sink.write(data)
    sink.finish()


def test_it_works(acme: Any, store: ObjectStore) -> None:
    content = os.urandom(3 * CHUNK_BYTES + 5)
    with vault.create(acme, "upload") as writer:
        writer.write(content[:100])
        writer.write(content[100:])
        made = writer.finish()
    assert made.size_bytes == len(content)
    assert made.sealed_bytes == len(sealed(store, made)) > len(content)
    with scope(acme):
        found = VaultObject.objects.of(acme).get(pk=made.pk)
    assert vault.get(found) == content
    with vault.open(found) as reader:
        reader.seek(CHUNK_BYTES - 2)
        assert reader.read(9) == content[CHUNK_BYTES - 2 : CHUNK_BYTES + 7]


def test_the_disk_holds_no_plaintext(acme: Any) -> None:
    made = vault.put(acme, "upload", CANARY * 1000)
    folder = Path(settings.OBJECTS_DIR)
    holding = [file for file in folder.rglob("*") if file.is_file() and CANARY in file.read_bytes()]
    assert holding == []
    control = folder / str(acme.pk) / "plain"
    control.write_bytes(vault.get(made))
    assert CANARY in control.read_bytes()
    control.unlink()


def test_a_destroyed_object_is_gone_for_good(acme: Any, store: ObjectStore, keys_in: Any) -> None:
    made = vault.put(acme, "upload", CANARY)
    kept = sealed(store, made)
    assert keys_in(acme.pk) == [vault.object_key(made)]
    with pytest.raises(RuntimeError), scope(acme):
        vault.destroy(made)
        raise RuntimeError("the transaction fails")
    assert vault.get(made) == CANARY  # nothing happened
    with scope(acme):
        vault.destroy(made)
        vault.destroy(made)
    assert keys_in(acme.pk) == []
    lay(store, made, kept)  # even a copy of the ciphertext opens no more
    with pytest.raises(vault.KeyDestroyed):
        vault.get(made)
    with scope(acme):
        assert VaultObject.objects.of(acme).get(pk=made.pk).destroyed_at is not None


def test_an_object_opens_in_its_own_place_only(acme: Any, globex: Any, store: ObjectStore) -> None:
    ours, theirs = vault.put(acme, "upload", b"ours"), vault.put(globex, "upload", b"theirs")
    lay(store, ours, sealed(store, theirs))
    with pytest.raises(SealBroken):
        vault.get(ours)
    assert vault.get(theirs) == b"theirs"
    with scope(acme), pytest.raises(OutOfScope):
        VaultObject.objects.of(globex)
    with scope(acme):
        assert ObjectKey._base_manager.filter(object_id=theirs.pk).count() == 0
        assert ObjectKey._base_manager.filter(object_id=ours.pk).count() == 1


def test_a_wrapped_key_moved_to_another_row_does_not_open(acme: Any) -> None:
    first, second = vault.put(acme, "upload", b"1"), vault.put(acme, "upload", b"2")
    with scope(acme):
        moved = ObjectKey.objects.of(acme).get(object=first)
        ObjectKey.objects.of(acme).filter(object=second).update(wrapped=bytes(moved.wrapped))
    with pytest.raises(vault.KeyDestroyed):
        vault.get(second)
    assert vault.get(first) == b"1"


def test_an_abandoned_or_failed_write_leaves_nothing(acme: Any, store: ObjectStore, keys_in: Any) -> None:
    with pytest.raises(OSError, match="broke off"), vault.create(acme, "upload") as writer:
        writer.write(CANARY)
        raise OSError("the client broke off")
    with pytest.raises(RuntimeError), scope(acme):
        writer = vault.create(acme, "upload")
        writer.write(b"x" * 200_000)
        writer.abort()
        raise RuntimeError
    with scope(acme):
        assert VaultObject.objects.of(acme).count() == 0
    assert keys_in(acme.pk) == []
    assert list(store.drafts(str(acme.pk))) == []


def test_derived_keys_differ_by_label_and_tenant(acme: Any, globex: Any) -> None:
    made = {vault.derive(acme, "audit"), vault.derive(acme, "units"), vault.derive(globex, "audit")}
    assert len(made) == 3
    assert all(len(key) == 32 for key in made)
    assert vault.derive(acme, "audit") in made


def test_shredding_a_tenant_ends_every_object(people: Any, store: ObjectStore, keys_in: Any) -> None:
    tenant = people.globex
    made = vault.put(tenant, "upload", CANARY)
    with scope(tenant):
        vault.shred_tenant(tenant)
    assert keys_in(tenant.pk) == []
    assert str(tenant.pk) not in store.folders()
    with pytest.raises(vault.KeyDestroyed):
        vault.data_key(made)
    with scope(tenant):
        assert DataKey.objects.of(tenant).count() == 0


def test_finish_inside_a_rolled_back_transaction_leaves_no_row(acme: Any) -> None:
    with pytest.raises(RuntimeError), scope(acme):
        made = vault.put(acme, "upload", CANARY)
        assert not transaction.get_connection().needs_rollback
        raise RuntimeError
    with pytest.raises(vault.KeyDestroyed):  # the orphan's key never was: its bytes open for nobody
        vault.get(made)
