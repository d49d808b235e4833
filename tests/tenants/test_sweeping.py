"""The sweep: what no row owns goes after a day, what rows lack is reported, on disk and in S3 alike."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from allauth.mfa.models import Authenticator
from django.conf import settings

from saas.lib import exported
from saas.lib.object_store import ObjectStore
from tenants import sweeping, tombstones, vault
from tenants.models import StoreSweep, VaultObject
from tenants.scope import scope

DAY = sweeping.DAY


@pytest.fixture
def after(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the sweeper's clock by this many days."""
    return lambda days: monkeypatch.setattr(sweeping, "clock", lambda: time.time() + days * DAY)


def lay(store: ObjectStore, key: str, data: bytes = b"bytes") -> None:
    sink = store.create(key)
    sink.write(data)
    sink.finish()


def orphan(tenant: Any) -> VaultObject:
    with pytest.raises(RuntimeError), scope(tenant):
        made = vault.put(tenant, "upload", b"orphan")
        raise RuntimeError
    return made


def test_orphans_go_after_a_day_and_nothing_else(
    acme: Any, store: ObjectStore, keys_in: Any, after: Any
) -> None:
    kept, gone = vault.put(acme, "upload", b"kept"), vault.put(acme, "upload", b"gone")
    lost = orphan(acme)
    draft = store.create(f"{acme.pk}/{uuid.uuid4()}/1")
    draft.write(bytes(9 << 20))
    assert sweeping.sweep(acme).removed == 0  # they are new: someone may still be writing
    vault.destroy(gone)
    lay(store, vault.object_key(gone))  # a destroyed object whose bytes came back
    after(1.1)
    found = sweeping.sweep(acme)
    assert (found.objects, found.removed, found.left, found.missing) == (1, 3, 0, [])
    assert keys_in(acme.pk) == [vault.object_key(kept)]
    assert store.stat(vault.object_key(lost)) is None
    assert list(store.drafts(str(acme.pk))) == []
    assert vault.get(kept) == b"kept"
    draft.abort()
    with scope(acme):
        seen = StoreSweep.objects.of(acme).get()
        assert (seen.objects_seen, seen.removed, seen.missing) == (1, 3, 0)


def test_rows_without_bytes_are_reported_and_stay(acme: Any, store: ObjectStore, keys_in: Any) -> None:
    made = [vault.put(acme, "upload", bytes([n])) for n in range(5)]
    for lost in made[1:3]:
        store.delete(vault.object_key(lost))
    found = sweeping.sweep(acme)
    assert found.missing == [str(lost.pk) for lost in made[1:3]]
    assert (found.objects, found.removed) == (5, 0)
    with scope(acme):
        assert VaultObject.objects.of(acme).filter(destroyed_at=None).count() == 5
    seen = StoreSweep.objects.everywhere().get(tenant_id=acme.pk)  # as the operators' console reads it
    assert seen.missing_ids == found.missing
    assert keys_in(acme.pk) == [vault.object_key(one) for one in (made[0], made[3], made[4])]


def test_the_operators_console_says_what_is_amiss(people: Any, acme: Any) -> None:
    user = people.user("olga")
    user.is_staff = True
    user.save()
    Authenticator.objects.create(user=user, type=Authenticator.Type.TOTP, data={"secret": "x"})
    console = people.browser("olga")
    made = vault.put(acme, "upload", b"lost")
    assert acme.slug not in console.get("/console/").content.decode()
    vault.store().delete(vault.object_key(made))
    sweeping.sweep(acme)
    words = console.get("/console/").content.decode()
    assert f"The bytes of 1 object of {acme.slug} are missing ({made.pk})." in words
    assert "Swept" in words


def test_pages_meet(acme: Any, store: ObjectStore, monkeypatch: pytest.MonkeyPatch, after: Any) -> None:
    monkeypatch.setattr(sweeping, "_PAGE", 2)
    made = [vault.put(acme, "upload", bytes([n])) for n in range(5)]
    store.delete(vault.object_key(made[2]))
    for _ in range(2):
        orphan(acme)
    after(2)
    found = sweeping.sweep(acme)
    assert (found.objects, found.removed, found.missing) == (5, 2, [str(made[2].pk)])


def test_an_old_database_does_not_cost_the_newer_objects(
    acme: Any, store: ObjectStore, keys_in: Any, after: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "FEW", 2)
    for number in range(4):
        lay(store, f"{acme.pk}/{uuid.UUID(int=number)}/1")
    after(2)
    found = sweeping.sweep(acme)
    assert (found.removed, found.left) == (0, 4)
    assert len(keys_in(acme.pk)) == 4
    after(tombstones.KEY_BACKUP_DAYS + 1)
    assert sweeping.sweep(acme).removed == 4  # nobody holds a key by now
    assert keys_in(acme.pk) == []


def test_strangers_go_when_they_are_known_to_have_ended(
    acme: Any, store: ObjectStore, after: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr(settings, "TOMBSTONES_DIR", tmp_path / "stones")
    kept = vault.put(acme, "upload", b"kept")
    ended, unknown = uuid.uuid4(), uuid.uuid4()
    for tenant_id in (ended, unknown):
        lay(store, f"{tenant_id}/{uuid.uuid4()}/1")
    lay(store, "backups/of-somebody-else/1")
    line = tombstones._line(tombstones._row(ended, "tenant", "", datetime.now(UTC)))
    exported.append(settings.TOMBSTONES_DIR, [line], at=datetime.now(UTC))
    assert sweeping.sweep_strangers() == 1
    assert sorted(store.folders()) == sorted([str(acme.pk), str(unknown), "backups"])
    after(tombstones.KEY_BACKUP_DAYS + 1)
    assert sweeping.sweep_strangers() == 1
    assert sorted(store.folders()) == sorted([str(acme.pk), "backups"])
    assert vault.get(kept) == b"kept"
