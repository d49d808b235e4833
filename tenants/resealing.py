"""New data keys: an object is sealed again, whole, under a new key and version, and one transaction swaps the two."""

from __future__ import annotations

import os
import secrets
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta
from typing import BinaryIO, Final, cast

from django.utils import timezone
from django.utils.translation import gettext as _

from saas.lib.errors import Refusal
from saas.lib.sealed import SealBroken, SealWriter
from tenants import audit, rotation, vault, vault_joined, vault_keys
from tenants.audit import Actor
from tenants.models import KeyRotation, ObjectKey, Tenant, VaultObject
from tenants.root_keys import KeyDestroyed
from tenants.scope import TenantQuerySet, scope

OLD_BYTES_SECONDS: Final = 60.0  # readers that had the old key may still open the old bytes for so long
_BLOCK: Final = 1 << 20
_SIGN_SECONDS: Final = 15.0
_VERSIONS: Final = (
    1 << 20
)  # a version is drawn among so many: two processes at one object never share a place


def start(tenant: Tenant, actor: Actor, *, kind: str = "", object_id: uuid.UUID | None = None) -> KeyRotation:
    """Seal every object of a kind ("": all), or one, under new data keys in the background. In the tenant's scope.

    Raises Refusal when there is none, Conflict while another rotation runs.
    """
    planned = KeyRotation(
        kind=KeyRotation.Kind.DATA, object_kind=kind, object_id=object_id, tenant_id=tenant.pk
    )
    planned.total = _objects(planned, timezone.now()).count()
    if not planned.total:
        raise Refusal(_("There are no such objects."), param="kind")
    made = rotation.begin(tenant, actor, planned)
    audit.record(tenant, actor, "keys.rotation_started", made, data_keys=kind or "all", objects=made.total)
    return made


def step(found: KeyRotation) -> bool:
    """Seal the next object again, or end; True when the rotation is done. Opens the tenant's scope by itself."""
    with scope(found.tenant_id):
        rows = _objects(found, found.created_at).order_by("pk")
        if found.after is not None:
            rows = rows.filter(pk__gt=found.after)
        stored = rows.first()
    if stored is None:
        return _tidy(found)
    try:
        trouble = "" if reseal(stored, sign=lambda: _sign(found)) else found.trouble
    except (KeyDestroyed, SealBroken, FileNotFoundError):
        trouble = _("Some objects could not be opened and were left as they are.")
    with scope(found.tenant_id):
        moved = KeyRotation.objects.of(found.tenant_id).filter(pk=found.pk, after=found.after)
        moved.update(
            after=stored.pk, done=found.done + 1, trouble=trouble or found.trouble, moved_at=timezone.now()
        )
    return False


def reseal(stored: VaultObject, *, sign: Callable[[], None]) -> bool:
    """Seal one object under a new data key; False when it was destroyed or replaced meanwhile.

    Readers see the old bytes or the new ones. Calls `sign` now and then. Raises KeyDestroyed, SealBroken, Refusal.
    """
    key = os.urandom(vault.KEY_BYTES)
    with closing(vault.open(stored)) as source:
        fresh = VaultObject(id=stored.pk, tenant_id=stored.tenant_id, kind=stored.kind)
        fresh.version = stored.version + 1 + secrets.randbelow(_VERSIONS)
        sink = vault.store().create(vault.object_key(fresh))
        try:
            seal = SealWriter(cast(BinaryIO, sink), key=key, context=vault.context(fresh))
            signed = time.monotonic()
            while block := source.read(_BLOCK):
                seal.write(block)
                if time.monotonic() - signed > _SIGN_SECONDS:
                    sign()
                    signed = time.monotonic()
            sealed = seal.close()
            fresh.sealed_bytes = sink.finish()
        except BaseException:
            sink.abort()
            raise
    fresh.digest = sealed.digest.hex()
    if sealed.size_bytes != stored.size_bytes:
        vault.store().delete(vault.object_key(fresh))
        raise SealBroken("What was sealed again is not what was stored.")
    if not _swap(stored, fresh, key):
        vault.store().delete(vault.object_key(fresh))
        return False
    return True


def _swap(stored: VaultObject, fresh: VaultObject, key: bytes) -> bool:
    with scope(stored.tenant_id):
        living = VaultObject.objects.of(stored.tenant_id).filter(
            pk=stored.pk, version=stored.version, destroyed_at=None
        )
        if not living.update(version=fresh.version, sealed_bytes=fresh.sealed_bytes, digest=fresh.digest):
            return False
        wrapped = vault_keys.seal_key(stored.tenant_id, key, place=vault.key_place(fresh))
        rows = ObjectKey.objects.of(stored.tenant_id).filter(object_id=stored.pk)
        if not rows.update(wrapped=wrapped):
            raise KeyDestroyed("This object's key was destroyed.")
    return True


def _sign(found: KeyRotation) -> None:
    with scope(found.tenant_id):
        KeyRotation.objects.of(found.tenant_id).filter(pk=found.pk).update(moved_at=timezone.now())


def _tidy(found: KeyRotation) -> bool:
    """Remove the old bytes once nobody can be about to open them, and end."""
    wait = timedelta(seconds=OLD_BYTES_SECONDS)
    with scope(found.tenant_id):
        row = KeyRotation.objects.of(found.tenant_id).get(pk=found.pk)
    if row.state == KeyRotation.State.DONE:
        return True
    if row.done and timezone.now() - row.moved_at < wait:
        time.sleep(1.0)
        return False
    remove_old_bytes(row)
    with scope(found.tenant_id):
        rows = KeyRotation.objects.of(found.tenant_id).filter(pk=row.pk, state=KeyRotation.State.RUNNING)
        if not rows.update(state=KeyRotation.State.DONE, finished_at=timezone.now()):
            return True
        tenant = Tenant.objects.get(pk=found.tenant_id)
        audit.record(tenant, audit.SYSTEM, "keys.rotated", row, objects=row.done)
    return True


def remove_old_bytes(found: KeyRotation) -> int:
    """Delete the versions that a rotation replaced; their keys are gone already. Returns how many."""
    with scope(found.tenant_id):
        versions = dict(_objects(found, found.created_at).values_list("pk", "version"))
    count = 0
    for pk, version in versions.items():
        for one in list(vault.store().list(f"{found.tenant_id}/{pk}")):
            number = one.key.rpartition("/")[2]
            if number.isdecimal() and int(number) < version:
                vault.store().delete(one.key)
                count += 1
    return count


def _objects(found: KeyRotation, before: datetime) -> TenantQuerySet[VaultObject]:
    """The living objects, made before that moment, that a rotation of data keys is about. In the tenant's scope."""
    rows: TenantQuerySet[VaultObject] = VaultObject.objects.of(found.tenant_id).filter(destroyed_at=None)
    rows = rows.exclude(kind=vault_joined.KIND).filter(created_at__lt=before)
    rows = rows.filter(kind=found.object_kind) if found.object_kind else rows
    return rows if found.object_id is None else rows.filter(pk=found.object_id)
