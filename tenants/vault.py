"""Envelope encryption of streams: the root key wraps a tenant key, which wraps one data key per object version."""

from __future__ import annotations

import os
import uuid
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self, cast

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from saas.lib.db import uuid7
from saas.lib.object_store import ObjectStore, store_at
from saas.lib.sealed import Context, SealReader, SealWriter
from tenants import tombstones, vault_joined
from tenants.models import DataKey, ObjectKey, Tenant, VaultObject
from tenants.scope import identity
from tenants.vault_keys import (
    KEY_BYTES,
    KeyDestroyed,
    KeysAway,
    TenantLike,
    WrongRootKey,
    create_tenant_key,
    derive,
    inside,
    open_key,
    open_row,
    seal_key,
    unwrap,
    wrap,
)

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = [
    "KEY_BYTES",
    "KeyDestroyed",
    "KeysAway",
    "VaultWriter",
    "WrongRootKey",
    "context",
    "create",
    "create_tenant_key",
    "data_key",
    "derive",
    "destroy",
    "get",
    "key_place",
    "location",
    "object_key",
    "open",
    "open_key",
    "open_row",
    "put",
    "seal_key",
    "shred_tenant",
    "store",
    "unwrap",
    "wrap",
]


def store() -> ObjectStore:
    """Where this installation's sealed bytes lie: a folder, or a bucket (OBJECT_STORE)."""
    return store_at(settings.OBJECT_STORE)


class VaultWriter:
    """Takes plaintext and keeps only ciphertext: `finish()` makes the object, anything else leaves nothing behind.

    No transaction is open while bytes stream. As a context manager it aborts unless finished.
    """

    def __init__(self, tenant: TenantLike, kind: str, *, version: int = 1) -> None:
        self.tenant_id = identity(tenant)
        self.id = uuid7()
        self._kind = kind
        self._version = version
        self._key = os.urandom(KEY_BYTES)
        self._place = _object_key(self.tenant_id, self.id, version)
        self._store = store()
        self._sink = self._store.create(self._place)
        bound = _context(self.tenant_id, self.id, version)
        self._seal = SealWriter(cast(BinaryIO, self._sink), key=self._key, context=bound)
        self.size_bytes = 0

    def write(self, data: Buffer) -> int:
        """Seal more plaintext; returns the number of bytes taken (all of them)."""
        taken = self._seal.write(data)
        self.size_bytes += taken
        return taken

    def finish(self) -> VaultObject:
        """Write the last chunk, make the object whole, insert its rows; in the caller's scope if one is open."""
        sealed = self._seal.close()
        sealed_bytes = self._sink.finish()
        try:
            with inside(self.tenant_id):
                made = VaultObject.objects.of(self.tenant_id).create(
                    id=self.id,
                    kind=self._kind,
                    version=self._version,
                    size_bytes=sealed.size_bytes,
                    sealed_bytes=sealed_bytes,
                    digest=sealed.digest.hex(),
                )
                wrapped = seal_key(self.tenant_id, self._key, place=key_place(made))
                ObjectKey.objects.of(self.tenant_id).create(object=made, wrapped=wrapped)
        except BaseException:
            self._store.delete(self._place)
            raise
        return made

    def abort(self) -> None:
        """Forget what was written; harmless after `finish()` and a second time."""
        self._sink.abort()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()


def create(tenant: TenantLike, kind: str) -> VaultWriter:
    """Begin a new object of a kind such as "upload", "segments", "artifact" or "checkpoint"."""
    return VaultWriter(tenant, kind)


def put(tenant: TenantLike, kind: str, data: bytes) -> VaultObject:
    """Store bytes that are already in memory."""
    with create(tenant, kind) as writer:
        writer.write(data)
        return writer.finish()


def open(stored: VaultObject) -> SealReader | vault_joined.JoinedReader:  # noqa: A001
    """A readable, seekable view of the object's plaintext. Raises KeyDestroyed and SealBroken."""
    if stored.kind == vault_joined.KIND:
        with inside(stored.tenant_id):
            return vault_joined.JoinedReader(vault_joined.parts_of(stored), _open)
    return _open(stored)


def _open(stored: VaultObject) -> SealReader:
    key = data_key(stored)
    source = store().open(object_key(stored))
    try:
        return SealReader(source, key=key, context=context(stored))
    except BaseException:
        source.close()
        raise


def get(stored: VaultObject) -> bytes:
    """The whole plaintext in memory. Raises KeyDestroyed and SealBroken."""
    with open(stored) as reader:
        return reader.readall()


def destroy(stored: VaultObject) -> None:
    """Shred an object: its key goes with the transaction, its bytes after the commit. A second call does nothing."""
    with inside(stored.tenant_id):
        for part in vault_joined.parts_of(stored) if stored.kind == vault_joined.KIND else ():
            destroy(part)
        rows = VaultObject.objects.of(stored.tenant_id).filter(pk=stored.pk, destroyed_at=None)
        is_first = rows.update(destroyed_at=timezone.now())  # before the key, as whoever seals it again does
        ObjectKey.objects.of(stored.tenant_id).filter(object_id=stored.pk).delete()
        if is_first:
            tombstones.note(stored.tenant_id, "object", str(stored.pk))
        transaction.on_commit(lambda: store().delete(object_key(stored)), robust=True)  # or the sweep does it


def shred_tenant(tenant: TenantLike) -> None:
    """Destroy the tenant's key: nothing sealed under it can be read from then on; the bytes go after the commit."""
    tenant_id = identity(tenant)
    with inside(tenant_id):
        # a rotation that is adding a generation has the row, or waits for it and finds nothing to add to
        Tenant.objects.select_for_update().filter(pk=tenant_id).first()
        DataKey.objects.of(tenant_id).delete()
        tombstones.note(tenant_id, "tenant", "")
        transaction.on_commit(lambda: store().delete_all(str(tenant_id)), robust=True)


@tombstones.applies("object")
def destroy_again(tenant_id: uuid.UUID, reference: str) -> None:
    """Shred an object that a restored backup brought back."""
    for stored in VaultObject.objects.of(tenant_id).filter(pk=reference):
        destroy(stored)


def data_key(stored: VaultObject) -> bytes:
    """The object's data key (32 bytes), and in `stored` the version that it opens. Raises KeyDestroyed and Refusal."""
    with inside(stored.tenant_id):
        keys = ObjectKey.objects.of(stored.tenant_id).select_related("object")
        row = keys.filter(object_id=stored.pk).first()
        if row is None:
            raise KeyDestroyed("This object's key was destroyed.")
        stored.version, stored.sealed_bytes = row.object.version, row.object.sealed_bytes
        return open_row(row, place=key_place(stored))


def context(stored: VaultObject) -> Context:
    """The place that the object's ciphertext is bound to."""
    return _context(stored.tenant_id, stored.pk, stored.version)


def object_key(stored: VaultObject) -> str:
    """Under which key the object's ciphertext lies in the store."""
    return _object_key(stored.tenant_id, stored.pk, stored.version)


def location(stored: VaultObject) -> str:
    """Where another process, such as an engine, finds the object's ciphertext: see `open_location`."""
    return store().location(object_key(stored))


def _context(tenant_id: uuid.UUID, object_id: uuid.UUID, version: int) -> Context:
    return Context(tenant=str(tenant_id), object=str(object_id), version=version)


def _object_key(tenant_id: uuid.UUID, object_id: uuid.UUID, version: int) -> str:
    return f"{tenant_id}/{object_id}/{version}"


def key_place(stored: VaultObject) -> str:
    """What an object's data key is bound to when it is wrapped."""
    return f"cloister/data-key/v1|{stored.tenant_id}|{stored.pk}|{stored.version}"
