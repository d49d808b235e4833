"""Envelope encryption of streams: the root key wraps a tenant key, which wraps one data key per object version."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import time
import uuid
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Final, Self, cast

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from saas.lib.db import uuid7
from saas.lib.sealed import Context, SealReader, SealWriter
from tenants.models import DataKey, ObjectKey, Tenant, VaultObject
from tenants.scope import current, identity, scope

if TYPE_CHECKING:
    from typing_extensions import Buffer

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
ORPHAN_SECONDS: Final = 24 * 3600
TenantLike = Tenant | uuid.UUID | str


class KeyDestroyed(Exception):
    """The key of this object or tenant was destroyed: the bytes cannot be read again by anyone."""


class WrongRootKey(Exception):
    """The root key at hand is not the one that wrapped this tenant's key."""


def wrap(secret: bytes, *, key: bytes, bound: str) -> bytes:
    """Encrypt a key under another, bound to a place: nonce, then AES-256-GCM ciphertext and tag."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, secret, bound.encode())


def unwrap(wrapped: bytes, *, key: bytes, bound: str) -> bytes:
    """The wrapped key; raises KeyDestroyed when this key or place did not wrap it."""
    try:
        return AESGCM(key).decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], bound.encode())
    except InvalidTag:
        raise KeyDestroyed("A wrapped key does not open under this key and place.") from None


def root_key() -> bytes:
    """The root key of this installation (32 bytes), made once with mode 0600.

    The file appears whole or not at all, also when several processes start at once. Raises PermissionError when others
    may read it.
    """
    file = Path(settings.ROOT_KEY_FILE)
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as new:
            new.write(os.urandom(KEY_BYTES))
            new.flush()
            os.fsync(new.fileno())
        try:
            os.link(draft, file)
        except FileExistsError:
            pass  # another process was first: its key counts
        finally:
            draft.unlink()
    with file.open("rb") as source:
        if os.fstat(source.fileno()).st_mode & 0o077:
            raise PermissionError(f"The root key {file} must be readable by its owner only: chmod 600.")
        key = source.read()
    if len(key) != KEY_BYTES:
        raise ValueError(f"The root key {file} must have {KEY_BYTES} bytes.")
    return key


def root_id(key: bytes) -> str:
    """A short name of a root key that says nothing about it."""
    return hashlib.sha256(b"cloister/root-id/v1" + key).hexdigest()[:32]


def create_tenant_key(tenant: Tenant) -> None:
    """Make the tenant's key; done once, with the tenant, inside its scope."""
    root = root_key()
    wrapped = wrap(os.urandom(KEY_BYTES), key=root, bound=_tenant_place(tenant.pk))
    DataKey.objects.of(tenant).create(wrapped=wrapped, root_id=root_id(root))


def tenant_key(tenant: TenantLike) -> bytes:
    """The tenant's key (32 bytes). Raises KeyDestroyed after shredding, WrongRootKey under another root key."""
    tenant_id = identity(tenant)
    with _inside(tenant_id):
        row = DataKey.objects.of(tenant_id).first()
    if row is None:
        raise KeyDestroyed("This tenant's key was destroyed.")
    root = root_key()
    if row.root_id != root_id(root):
        raise WrongRootKey(f"The tenant's key is wrapped by root key {row.root_id}, not by {root_id(root)}.")
    return unwrap(bytes(row.wrapped), key=root, bound=_tenant_place(tenant_id))


def rewrap_tenant_key(tenant: TenantLike, *, old_root: bytes, new_root: bytes) -> None:
    """Move a tenant's key under another root key; objects and data keys stay as they are."""
    tenant_id = identity(tenant)
    with _inside(tenant_id):
        row = DataKey.objects.of(tenant_id).select_for_update().get()
        key = unwrap(bytes(row.wrapped), key=old_root, bound=_tenant_place(tenant_id))
        wrapped = wrap(key, key=new_root, bound=_tenant_place(tenant_id))
        DataKey.objects.of(tenant_id).filter(pk=row.pk).update(wrapped=wrapped, root_id=root_id(new_root))


def derive(tenant: TenantLike, label: str) -> bytes:
    """32 bytes for one named purpose (audit chain, unit handles, keyed split) from the tenant's key."""
    info = b"cloister/derive/v1|" + label.encode()
    return HKDF(algorithm=hashes.SHA512(), length=32, salt=None, info=info).derive(tenant_key(tenant))


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
            with _inside(self.tenant_id):
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
    with _inside(stored.tenant_id):
        ObjectKey.objects.of(stored.tenant_id).filter(object_id=stored.pk).delete()
        rows = VaultObject.objects.of(stored.tenant_id).filter(pk=stored.pk, destroyed_at=None)
        rows.update(destroyed_at=timezone.now())
        transaction.on_commit(lambda: _remove(object_path(stored)))


def shred_tenant(tenant: TenantLike) -> None:
    """Destroy the tenant's key: nothing sealed under it can be read from then on; the bytes go after the commit."""
    tenant_id = identity(tenant)
    with _inside(tenant_id):
        DataKey.objects.of(tenant_id).delete()
        folder = Path(settings.OBJECTS_DIR) / str(tenant_id)
        transaction.on_commit(lambda: shutil.rmtree(folder, ignore_errors=True))


def sweep(tenant: TenantLike) -> int:
    """Remove files that no object owns: of writers that died and transactions that rolled back. Returns how many.

    Only files untouched for a day: a writer may stream for hours before its row exists. Nobody can read them anyway:
    their keys were never kept.
    """
    tenant_id = identity(tenant)
    with _inside(tenant_id):
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
    with _inside(stored.tenant_id):
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


def _inside(tenant_id: uuid.UUID) -> AbstractContextManager[None]:
    return nullcontext() if current() == tenant_id else scope(tenant_id)


def _context(tenant_id: uuid.UUID, object_id: uuid.UUID, version: int) -> Context:
    return Context(tenant=str(tenant_id), object=str(object_id), version=version)


def _path(tenant_id: uuid.UUID, object_id: uuid.UUID, version: int) -> Path:
    return Path(settings.OBJECTS_DIR) / str(tenant_id) / str(object_id) / str(version)


def _tenant_place(tenant_id: uuid.UUID) -> str:
    return f"cloister/tenant-key/v1|{tenant_id}"


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
