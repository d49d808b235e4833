"""Envelope encryption of streams: the root key wraps a tenant key, which wraps one data key per object version."""

from __future__ import annotations

import os
import secrets
import shutil
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Final, Self, cast

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from saas.lib.db import uuid7
from saas.lib.sealed import Context, SealReader, SealWriter
from tenants.models import DataKey, ObjectKey, VaultObject
from tenants.scope import identity
from tenants.vault_keys import (
    KEY_BYTES,
    KeyDestroyed,
    TenantLike,
    WrongRootKey,
    create_tenant_key,
    derive,
    inside,
    rewrap_tenant_key,
    root_id,
    root_key,
    tenant_key,
    unwrap,
    wrap,
)

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = [
    "KEY_BYTES",
    "KeyDestroyed",
    "VaultWriter",
    "WrongRootKey",
    "context",
    "create",
    "create_tenant_key",
    "data_key",
    "derive",
    "destroy",
    "get",
    "object_path",
    "open",
    "put",
    "rewrap_tenant_key",
    "root_id",
    "root_key",
    "shred_tenant",
    "sweep",
    "tenant_key",
    "unwrap",
    "wrap",
]

ORPHAN_SECONDS: Final = 24 * 3600


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
        self._file = _path(self.tenant_id, self.id, version)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._draft = self._file.with_name(f".{version}.{secrets.token_hex(8)}")
        self._sink: BinaryIO = self._draft.open("xb", buffering=0)
        place = _context(self.tenant_id, self.id, version)
        self._seal = SealWriter(self._sink, key=self._key, context=place)
        self.size_bytes = 0

    def write(self, data: Buffer) -> int:
        """Seal more plaintext; returns the number of bytes taken (all of them)."""
        taken = self._seal.write(data)
        self.size_bytes += taken
        return taken

    def finish(self) -> VaultObject:
        """Write the last chunk, move the file into place, insert its rows; in the caller's scope if one is open."""
        sealed = self._seal.close()
        os.fsync(self._sink.fileno())
        sealed_bytes = os.fstat(self._sink.fileno()).st_size
        self._sink.close()
        self._draft.rename(self._file)
        _sync_folder(self._file.parent)
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
                bound = _object_place(self.tenant_id, self.id, self._version)
                wrapped = wrap(self._key, key=tenant_key(self.tenant_id), bound=bound)
                ObjectKey.objects.of(self.tenant_id).create(object=made, wrapped=wrapped)
        except BaseException:
            _remove(self._file)
            raise
        return made

    def abort(self) -> None:
        """Forget what was written; harmless after `finish()` and a second time."""
        self._sink.close()
        if self._draft.exists():
            _remove(self._draft)

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


def open(stored: VaultObject) -> SealReader:  # noqa: A001
    """A readable, seekable view of the object's plaintext. Raises KeyDestroyed and SealBroken."""
    key = data_key(stored)
    source = cast(BinaryIO, object_path(stored).open("rb", buffering=0))
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
        ObjectKey.objects.of(stored.tenant_id).filter(object_id=stored.pk).delete()
        rows = VaultObject.objects.of(stored.tenant_id).filter(pk=stored.pk, destroyed_at=None)
        rows.update(destroyed_at=timezone.now())
        transaction.on_commit(lambda: _remove(object_path(stored)))


def shred_tenant(tenant: TenantLike) -> None:
    """Destroy the tenant's key: nothing sealed under it can be read from then on; the bytes go after the commit."""
    tenant_id = identity(tenant)
    with inside(tenant_id):
        DataKey.objects.of(tenant_id).delete()
        folder = Path(settings.OBJECTS_DIR) / str(tenant_id)
        transaction.on_commit(lambda: shutil.rmtree(folder, ignore_errors=True))


def sweep(tenant: TenantLike) -> int:
    """Remove files that no object owns: of writers that died and transactions that rolled back. Returns how many.

    Only files untouched for a day: a writer may stream for hours before its row exists. Nobody can read them anyway:
    their keys were never kept.
    """
    tenant_id = identity(tenant)
    with inside(tenant_id):
        living = VaultObject.objects.of(tenant_id).filter(destroyed_at=None)
        owned = {_path(tenant_id, pk, version) for pk, version in living.values_list("pk", "version")}
    oldest = time.time() - ORPHAN_SECONDS
    files = [file for file in (Path(settings.OBJECTS_DIR) / str(tenant_id)).glob("*/*") if file not in owned]
    orphans = [file for file in files if file.stat().st_mtime < oldest]
    for file in orphans:
        _remove(file)
    return len(orphans)


def data_key(stored: VaultObject) -> bytes:
    """The object's data key (32 bytes). Raises KeyDestroyed."""
    with inside(stored.tenant_id):
        row = ObjectKey.objects.of(stored.tenant_id).filter(object_id=stored.pk).first()
        if row is None:
            raise KeyDestroyed("This object's key was destroyed.")
        bound = _object_place(stored.tenant_id, stored.pk, stored.version)
        return unwrap(bytes(row.wrapped), key=tenant_key(stored.tenant_id), bound=bound)


def context(stored: VaultObject) -> Context:
    """The place that the object's ciphertext is bound to."""
    return _context(stored.tenant_id, stored.pk, stored.version)


def object_path(stored: VaultObject) -> Path:
    """Where the object's ciphertext lies."""
    return _path(stored.tenant_id, stored.pk, stored.version)


def _context(tenant_id: uuid.UUID, object_id: uuid.UUID, version: int) -> Context:
    return Context(tenant=str(tenant_id), object=str(object_id), version=version)


def _path(tenant_id: uuid.UUID, object_id: uuid.UUID, version: int) -> Path:
    return Path(settings.OBJECTS_DIR) / str(tenant_id) / str(object_id) / str(version)


def _object_place(tenant_id: uuid.UUID, object_id: uuid.UUID, version: int) -> str:
    return f"cloister/data-key/v1|{tenant_id}|{object_id}|{version}"


def _sync_folder(folder: Path) -> None:
    """Make a rename durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(file: Path) -> None:
    """Unlink a file and its folder when that is empty."""
    file.unlink(missing_ok=True)
    if file.parent.exists() and not any(file.parent.iterdir()):
        file.parent.rmdir()
