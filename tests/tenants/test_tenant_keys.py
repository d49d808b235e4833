"""A tenant's keys: generations that wrap, a secret that never changes, rows from before, rotation and new data keys."""

from __future__ import annotations

import os
from contextlib import closing
from io import StringIO
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.core.management import CommandError, call_command

from modeling.models import Dataset, DatasetKey
from modeling.models.datasets import dataset_place
from saas.lib.errors import Conflict, Refusal
from tenants import audit, resealing, rotation, vault, vault_keys
from tenants.audit import Actor
from tenants.models import AuditEntry, DataKey, KeyRotation, ObjectKey, Tenant, VaultObject
from tenants.root_keys import FileKey, seal
from tenants.scope import scope

OWNER = Actor("user", "1", "owner@example.test")


def generations(tenant: Tenant) -> list[int]:
    with scope(tenant):
        return sorted(DataKey.objects.of(tenant).values_list("generation", flat=True))


def rotated(tenant: Tenant) -> KeyRotation:
    with scope(tenant):
        begun = rotation.start(tenant, OWNER)
    assert rotation.run(tenant.pk, begun.pk, is_stopping=lambda: False)
    with scope(tenant):
        return KeyRotation.objects.of(tenant).get(pk=begun.pk)


def as_before(key: bytes, label: str) -> bytes:
    """What was derived from a tenant's key before there were generations."""
    info = b"cloister/derive/v1|" + label.encode()
    return HKDF(algorithm=hashes.SHA512(), length=32, salt=None, info=info).derive(key)


def test_it_works(acme: Any) -> None:
    assert generations(acme) == [0, 1]
    secret = os.urandom(32)
    wrapped = vault.seal_key(acme, secret, place="here")
    assert vault_keys.generation_of(wrapped) == 1
    assert vault.open_key(acme, wrapped, place="here") == secret
    for place in ("there", "here|"):
        with pytest.raises(vault.KeyDestroyed):
            vault.open_key(acme, wrapped, place=place)
    for broken in (b"", wrapped[:4], b"\x02" + wrapped[1:], wrapped[:1] + bytes(4) + wrapped[5:]):
        with pytest.raises(vault.KeyDestroyed):
            vault.open_key(acme, broken, place="here")


def test_rows_from_before_derive_and_open_as_ever_and_rotate(people: Any, settings: Any) -> None:
    """A tenant as migration 0003 finds it: one key that wraps and derives, wrapped keys without a head."""
    tenant = people.globex
    key, ring = bytes([1]) * 32, bytes([3]) * 32
    root = FileKey(settings.ROOT_KEY_FILE)
    made = vault.put(tenant, "upload", b"kept")
    with scope(tenant):
        dataset = Dataset.objects.of(tenant).create(name="old", pack="finance", task="", columns={})
        dataset_key = DatasetKey.objects.of(tenant).create(dataset=dataset, wrapped=b"")
        stored_key = vault.data_key(made)
        DataKey.objects.of(tenant).filter(generation=1).delete()
        wrapped = seal(key, key=root.key(), bound=f"cloister/tenant-key/v1|{tenant.pk}")
        DataKey.objects.of(tenant).filter(generation=0).update(wrapped=wrapped)
        old = seal(stored_key, key=key, bound=vault.key_place(made))
        ObjectKey.objects.of(tenant).filter(object=made).update(wrapped=old)
        assert len(old) == vault_keys.OLD_BYTES
    labels = ("audit", "unit-handle", "held-out", "content-hash", "ledger-head", "dataset-keys")
    derived = {label: vault.derive(tenant, label) for label in labels}
    assert derived == {label: as_before(key, label) for label in labels}
    with scope(tenant):
        place = dataset_place(dataset.pk)
        wrapped = seal(ring, key=derived["dataset-keys"], bound=place)
        DatasetKey.objects.of(tenant).filter(pk=dataset_key.pk).update(wrapped=wrapped)
        dataset_key.refresh_from_db()
        assert vault.open_row(dataset_key, place=place) == ring
    assert vault.get(made) == b"kept"
    done = rotated(tenant)
    assert (done.state, done.done) == ("done", 2)
    assert generations(tenant) in ([0, 1], [0, 2])
    assert vault.get(made) == b"kept"
    with scope(tenant):
        dataset_key.refresh_from_db()
        assert len(bytes(dataset_key.wrapped)) == vault_keys.OLD_BYTES + vault_keys.HEAD_BYTES
        assert vault.open_row(dataset_key, place=place) == ring
        assert rotation.left_on_old_keys(tenant) == 0
    assert {label: vault.derive(tenant, label) for label in derived} == derived


def test_a_rotation_wraps_everything_again_and_destroys_the_old_key(acme: Any) -> None:
    made = [vault.put(acme, "upload", bytes([number])) for number in range(5)]
    derived = vault.derive(acme, "audit")
    with scope(acme):
        before = {row.object_id: bytes(row.wrapped) for row in ObjectKey.objects.of(acme)}
        audited = audit.verify(acme)
    done = rotated(acme)
    assert (done.state, done.total, done.done, done.trouble) == ("done", 5, 5, "")
    assert generations(acme) == [0, 2]
    assert [vault.get(one) for one in made] == [bytes([number]) for number in range(5)]
    assert vault.derive(acme, "audit") == derived
    with scope(acme):
        assert rotation.left_on_old_keys(acme) == 0
        assert audit.verify(acme).entries == audited.entries + 2
        assert audit.verify(acme).is_whole
    for one, wrapped in zip(made, before.values(), strict=True):  # a copy of the old row opens no more
        with pytest.raises(vault.KeyDestroyed):
            vault.open_key(acme, wrapped, place=vault.key_place(one))


def test_a_rotation_goes_on_where_it_was_stopped(acme: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "AT_ONCE", 2)
    made = [vault.put(acme, "upload", b"x") for _number in range(5)]
    with scope(acme):
        begun = rotation.start(acme, OWNER)
        with pytest.raises(Conflict):
            rotation.start(acme, OWNER)
    steps = iter([False, False, True])
    assert not rotation.run(acme.pk, begun.pk, is_stopping=lambda: next(steps))
    assert generations(acme) == [0, 1, 2]
    late = vault.put(acme, "upload", b"late")  # by the new generation
    with scope(acme):
        assert vault_keys.generation_of(bytes(ObjectKey.objects.of(acme).get(object=late).wrapped)) == 2
    assert all(vault.get(one) == b"x" for one in made)
    assert rotation.run(acme.pk, begun.pk, is_stopping=lambda: False)
    assert not rotation.run(acme.pk, begun.pk, is_stopping=lambda: False)  # a second hint does nothing
    assert generations(acme) == [0, 2]
    assert all(vault.get(one) == b"x" for one in made)


def test_a_key_that_opens_for_nobody_keeps_its_generation(acme: Any) -> None:
    good, bad = vault.put(acme, "upload", b"good"), vault.put(acme, "upload", b"bad")
    with scope(acme):
        row = ObjectKey.objects.of(acme).get(object=bad)
        broken = bytes(row.wrapped)[:-1] + bytes([bytes(row.wrapped)[-1] ^ 1])
        ObjectKey.objects.of(acme).filter(pk=row.pk).update(wrapped=broken)
    done = rotated(acme)
    assert "1 keys open for nobody" in done.trouble
    assert generations(acme) == [0, 1, 2]
    assert vault.get(good) == b"good"


def test_readers_in_flight_find_the_key_again(acme: Any) -> None:
    made = vault.put(acme, "upload", b"kept")
    with scope(acme):
        row = ObjectKey.objects.of(acme).get(object=made)  # read before the rotation, opened after it
    rotated(acme)
    assert len(vault.open_row(row, place=vault.key_place(made))) == 32


def test_new_data_keys_seal_the_object_again(acme: Any) -> None:
    content = os.urandom(700_000)
    made, other = vault.put(acme, "segments", content), vault.put(acme, "upload", b"other")
    with scope(acme):
        stale = VaultObject.objects.of(acme).get(pk=made.pk)
        old_key, old_place = vault.data_key(made), vault.object_key(made)
        with pytest.raises(Refusal):
            resealing.start(acme, OWNER, kind="nothing")
        begun = resealing.start(acme, OWNER, kind="segments")
    with closing(vault.open(made)) as reader:
        first = reader.read(10)
        assert not resealing.step(begun)
        assert first + reader.read() == content  # whoever had it open finishes
    assert vault.get(stale) == content  # whoever had the row opens the new bytes
    assert stale.version > 1
    assert vault.data_key(stale) != old_key
    with scope(acme):
        begun.refresh_from_db()
        KeyRotation.objects.of(acme).filter(pk=begun.pk).update(moved_at="2026-01-01T00:00:00Z")
        begun.refresh_from_db()
    assert resealing.step(begun)
    assert [one.key for one in vault.store().list(f"{acme.pk}/{made.pk}")] == [vault.object_key(stale)]
    assert old_place != vault.object_key(stale)
    assert vault.get(other) == b"other"
    with scope(acme):
        assert KeyRotation.objects.of(acme).get(pk=begun.pk).state == "done"
        assert AuditEntry.objects.of(acme).filter(action="keys.rotated").exists()


def test_an_object_that_is_destroyed_meanwhile_stays_destroyed(
    acme: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = vault.put(acme, "upload", b"gone")
    swap = resealing._swap

    def late(stored: VaultObject, fresh: VaultObject, key: bytes) -> bool:
        with scope(acme):
            vault.destroy(made)
        return swap(stored, fresh, key)

    monkeypatch.setattr(resealing, "_swap", late)
    with scope(acme):
        stored = VaultObject.objects.of(acme).get(pk=made.pk)
    assert not resealing.reseal(stored, sign=lambda: None)
    assert list(vault.store().list(str(acme.pk))) == []


def test_the_command_rotates_a_tenant(acme: Any) -> None:
    made = vault.put(acme, "upload", b"kept")
    said = StringIO()
    call_command("rotate_keys", "--tenant", acme.slug, stdout=said)
    assert "1 keys done." in said.getvalue()
    assert generations(acme) == [0, 2]
    assert vault.get(made) == b"kept"
    for wrong in ([], ["--tenant", "nobody"], ["--root", "--tenant", acme.slug]):
        with pytest.raises(CommandError):
            call_command("rotate_keys", *wrong)


def test_another_tenant_opens_nothing(acme: Any, globex: Any) -> None:
    wrapped = vault.seal_key(acme, bytes(32), place="here")
    with pytest.raises(vault.KeyDestroyed):
        vault.open_key(globex, wrapped, place="here")


def test_shredding_ends_at_once_what_is_remembered(people: Any) -> None:
    tenant = people.globex
    made = vault.put(tenant, "upload", b"x")
    assert vault.get(made) == b"x"  # its key is in this process's memory
    with scope(tenant):
        vault.shred_tenant(tenant)
    with pytest.raises(vault.KeyDestroyed):
        vault.data_key(made)
    with pytest.raises(vault.KeyDestroyed):
        vault.seal_key(tenant, bytes(32), place="here")
