"""Keys of the vault: the root key wraps a tenant's key, which wraps data keys; what is derived from a tenant's key."""

from __future__ import annotations

import hashlib
import os
import secrets
import uuid
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

from tenants.models import DataKey, Tenant
from tenants.scope import current, identity, scope

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
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
    with inside(tenant_id):
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
    with inside(tenant_id):
        row = DataKey.objects.of(tenant_id).select_for_update().get()
        key = unwrap(bytes(row.wrapped), key=old_root, bound=_tenant_place(tenant_id))
        wrapped = wrap(key, key=new_root, bound=_tenant_place(tenant_id))
        DataKey.objects.of(tenant_id).filter(pk=row.pk).update(wrapped=wrapped, root_id=root_id(new_root))


def derive(tenant: TenantLike, label: str) -> bytes:
    """32 bytes for one named purpose (audit chain, unit handles, keyed split) from the tenant's key."""
    info = b"cloister/derive/v1|" + label.encode()
    return HKDF(algorithm=hashes.SHA512(), length=32, salt=None, info=info).derive(tenant_key(tenant))


def inside(tenant_id: uuid.UUID) -> AbstractContextManager[None]:
    """The tenant's scope: the one already open, or one of its own."""
    return nullcontext() if current() == tenant_id else scope(tenant_id)


def _tenant_place(tenant_id: uuid.UUID) -> str:
    return f"cloister/tenant-key/v1|{tenant_id}"
