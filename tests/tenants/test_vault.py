"""The vault: objects come back to their tenant only, destroyed ones to nobody, and the disk holds no plaintext."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import transaction

from saas.lib.sealed import CHUNK_BYTES, SealBroken
from tenants import vault
from tenants.models import DataKey, ObjectKey, VaultObject
from tenants.scope import OutOfScope, scope

CANARY = b"canary: patient 4711 has a rare disease"


def test_it_works(acme: Any) -> None:
    content = os.urandom(3 * CHUNK_BYTES + 5)
    with vault.create(acme, "upload") as writer:
        writer.write(content[:100])
        writer.write(content[100:])
        made = writer.finish()
    assert made.size_bytes == len(content)
    assert made.sealed_bytes == vault.object_path(made).stat().st_size > len(content)
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


def test_a_destroyed_object_is_gone_for_good(acme: Any) -> None:
    made = vault.put(acme, "upload", CANARY)
    file = vault.object_path(made)
    kept = file.read_bytes()
    with pytest.raises(RuntimeError), scope(acme):
        vault.destroy(made)
        raise RuntimeError("the transaction fails")
    assert vault.get(made) == CANARY  # nothing happened
    with scope(acme):
        vault.destroy(made)
        vault.destroy(made)
    assert not file.exists()
    assert not file.parent.exists()
    file.parent.mkdir()
    file.write_bytes(kept)  # even a copy of the ciphertext opens no more
    with pytest.raises(vault.KeyDestroyed):
        vault.get(made)
    with scope(acme):
        assert VaultObject.objects.of(acme).get(pk=made.pk).destroyed_at is not None


def test_an_object_opens_in_its_own_place_only(acme: Any, globex: Any) -> None:
    ours, theirs = vault.put(acme, "upload", b"ours"), vault.put(globex, "upload", b"theirs")
    shutil.copy(vault.object_path(theirs), vault.object_path(ours))
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


def test_an_abandoned_or_failed_write_leaves_nothing(acme: Any) -> None:
    folder = Path(settings.OBJECTS_DIR) / str(acme.pk)
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
    assert [file for file in folder.rglob("*") if file.is_file()] == []


def test_derived_keys_differ_by_label_and_tenant(acme: Any, globex: Any) -> None:
    made = {vault.derive(acme, "audit"), vault.derive(acme, "units"), vault.derive(globex, "audit")}
    assert len(made) == 3
    assert all(len(key) == 32 for key in made)
    assert vault.derive(acme, "audit") in made


def test_root_key_is_private_and_rotation_rewraps_keys_only(acme: Any, tmp_path: Path) -> None:
    file = Path(settings.ROOT_KEY_FILE)
    made = vault.put(acme, "upload", CANARY)
    sealed = vault.object_path(made).read_bytes()
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(file.read_bytes()) == 32
    old, new = vault.root_key(), os.urandom(32)
    vault.rewrap_tenant_key(acme, old_root=old, new_root=new)
    with pytest.raises(vault.WrongRootKey):
        vault.get(made)
    vault.rewrap_tenant_key(acme, old_root=new, new_root=old)
    assert vault.get(made) == CANARY
    assert vault.object_path(made).read_bytes() == sealed


def test_a_root_key_others_can_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "ROOT_KEY_FILE", tmp_path / "root.key")
    made = vault.root_key()
    assert vault.root_key() == made
    (tmp_path / "root.key").chmod(0o644)
    with pytest.raises(PermissionError):
        vault.root_key()


def test_shredding_a_tenant_ends_every_object(people: Any) -> None:
    tenant = people.globex
    made = vault.put(tenant, "upload", CANARY)
    with scope(tenant):
        vault.shred_tenant(tenant)
    assert not (Path(settings.OBJECTS_DIR) / str(tenant.pk)).exists()
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


def test_orphans_are_swept_after_a_day_and_nothing_else(acme: Any) -> None:
    kept = vault.put(acme, "upload", CANARY)
    with pytest.raises(RuntimeError), scope(acme):
        orphan = vault.put(acme, "upload", CANARY)
        raise RuntimeError
    draft = vault.object_path(kept).with_name(".1.dead")
    draft.write_bytes(b"half")
    assert vault.sweep(acme) == 0  # they are new: someone may still be writing
    for file in (vault.object_path(orphan), vault.object_path(kept), draft):
        os.utime(file, (0, 0))
    assert vault.sweep(acme) == 2
    assert not vault.object_path(orphan).exists()
    assert not draft.exists()
    assert vault.get(kept) == CANARY
