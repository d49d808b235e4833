"""A tenant's keys: generations that wrap data keys, themselves wrapped by a root key; and what is derived for good."""

from __future__ import annotations

import hashlib
import os
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final, Protocol

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.db import connection, models
from django.db.models import Max
from django.utils.translation import gettext as _

from tenants import root_keys
from tenants.models import DataKey, OwnKey, Tenant
from tenants.root_keys import (
    KEY_BYTES,
    Bound,
    KeyDestroyed,
    KeyRefused,
    KeysAway,
    KeysUnreachable,
    RootKey,
    WrongRootKey,
)
from tenants.root_keys import seal as wrap
from tenants.root_keys import unseal as unwrap
from tenants.scope import current, identity, scope

__all__ = ["KEY_BYTES", "KeyDestroyed", "KeysAway", "WrongRootKey", "unwrap", "wrap"]

TenantLike = Tenant | uuid.UUID | str
SECRET: Final = (
    0  # the generation from which keys are derived; before there were generations it wrapped as well
)
FORMAT: Final = b"\x01"
HEAD_BYTES: Final = 5  # the format and the generation, before nonce and ciphertext
OLD_BYTES: Final = 60  # a wrapped key without a head, under the secret itself
_OLD_LABELS: Final = {
    "cloister/dataset-key/": "dataset-keys"
}  # wrapped under what was derived, not under the secret
# With the 5 s that the gateway remembers: under the minute within which a tenant's own key must bite.
CACHE_SECONDS: Final = 45.0
FRESH_SECONDS: Final = 30.0  # after that one caller asks again, and the others go on with what they have
FAILED_SECONDS: Final = 5.0  # so long everybody is refused at once after a key service failed
_PATIENCE_SECONDS: Final = 1.0  # for another thread that asks the same key service
_MOST_CACHED: Final = 10_000
_ROOT_LOCK: Final = "root-key"


class Wrapping(Protocol):
    """A row that holds a wrapped key."""

    tenant_id: uuid.UUID
    wrapped: bytes | memoryview

    def refresh_from_db(self, *, fields: list[str]) -> None:
        """Django's."""


@dataclass(frozen=True, slots=True)
class _Opened:
    fresh_until: float
    until: float
    key: bytes = b""
    error: Callable[[], Exception] | None = None


_cache: dict[bytes, _Opened] = {}
_locks = tuple(threading.Lock() for _number in range(64))


def create_tenant_key(tenant: Tenant) -> None:
    """Make the tenant's secret and its first key; done once, with the tenant, inside its scope."""
    _add(tenant.pk, SECRET, root_keys.installation())
    _add(tenant.pk, SECRET + 1, root_keys.installation())


def add_generation(tenant: TenantLike, root: RootKey) -> int:
    """A new key that wraps from the commit on, under that root key; returns its generation. In the tenant's scope."""
    tenant_id = identity(tenant)
    highest = DataKey.objects.of(tenant_id).aggregate(highest=Max("generation"))["highest"]
    if highest is None:
        raise KeyDestroyed("This tenant's key was destroyed.")
    _add(tenant_id, highest + 1, root)
    return int(highest) + 1


def _add(tenant_id: uuid.UUID, generation: int, root: RootKey) -> None:
    hold_root_keys()
    made = root.wrap(os.urandom(KEY_BYTES), Bound(tenant_id, generation))
    row = DataKey(tenant_id=tenant_id, generation=generation, wrapped=made.content, root_id=made.root_id)
    DataKey.objects.of(tenant_id).bulk_create([row], ignore_conflicts=True)


def hold_root_keys(*, alone: bool = False) -> None:
    """Until the transaction ends no root key is retired; `alone`: and nobody wraps anything by one meanwhile."""
    kind = "" if alone else "_shared"
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT pg_advisory_xact_lock{kind}(hashtextextended(%s, 0))", [_ROOT_LOCK])


def seal_key(tenant: TenantLike, secret: bytes, *, place: str) -> bytes:
    """Wrap a key under the newest generation of the tenant's: format, generation, nonce, AES-256-GCM.

    That generation stays until the transaction ends. Raises KeyDestroyed and Refusal.
    """
    tenant_id = identity(tenant)
    with inside(tenant_id):
        row = newest(tenant_id)
        return seal_under(row, secret, place=place)


def seal_under(row: DataKey, secret: bytes, *, place: str) -> bytes:
    """Wrap a key under that generation."""
    return head(row.generation) + wrap(
        secret, key=_key(row), bound=_bound(row.tenant_id, row.generation, place)
    )


def open_key(tenant: TenantLike, wrapped: bytes, *, place: str) -> bytes:
    """The key again. Raises KeyDestroyed for another place or a generation that is gone; Refusal when refused."""
    tenant_id = identity(tenant)
    generation = generation_of(wrapped)
    with inside(tenant_id):
        key = _key(_row(tenant_id, generation))
    if len(wrapped) != OLD_BYTES:
        return unwrap(wrapped[HEAD_BYTES:], key=key, bound=_bound(tenant_id, generation, place))
    for start, label in _OLD_LABELS.items():
        if place.startswith(start):
            key = _derived(key, label)
    return unwrap(wrapped, key=key, bound=place)


def open_row(row: Wrapping, *, place: str) -> bytes:
    """The key that a row holds, read again where a rotation has wrapped it anew since; raises as `open_key`."""
    tenant_id = row.tenant_id
    with inside(tenant_id):
        try:
            return open_key(tenant_id, bytes(row.wrapped), place=place)
        except KeyDestroyed:
            before = bytes(row.wrapped)
            try:
                row.refresh_from_db(fields=["wrapped"])
            except models.ObjectDoesNotExist:
                raise KeyDestroyed("This key was destroyed.") from None
            if bytes(row.wrapped) == before:
                raise
            return open_key(tenant_id, bytes(row.wrapped), place=place)


def derive(tenant: TenantLike, label: str) -> bytes:
    """32 bytes for one named purpose (audit chain, unit handles, keyed split); no rotation changes them."""
    tenant_id = identity(tenant)
    with inside(tenant_id):
        return _derived(_key(_row(tenant_id, SECRET)), label)


def is_open(tenant: TenantLike) -> bool:
    """Whether the tenant's key can be had now; what must not fail for want of it waits. In the tenant's scope."""
    row = DataKey.objects.of(identity(tenant)).order_by("-generation").first()
    try:
        return row is None or bool(_key(row))
    except KeysAway:
        return False


def head(generation: int) -> bytes:
    """How a key wrapped under that generation begins."""
    return FORMAT + generation.to_bytes(4, "big")


def generation_of(wrapped: bytes) -> int:
    """Under which generation a key was wrapped; raises KeyDestroyed for what is no wrapped key."""
    if len(wrapped) == OLD_BYTES:
        return SECRET
    if wrapped[:1] != FORMAT or len(wrapped) <= HEAD_BYTES:
        raise KeyDestroyed("This is not a wrapped key.")
    return int.from_bytes(wrapped[1:HEAD_BYTES], "big")


def forget(tenant_id: uuid.UUID | None = None) -> None:
    """Drop what this process remembers of opened keys."""
    for name in [name for name in _cache if tenant_id is None or name.startswith(tenant_id.bytes)]:
        _cache.pop(name, None)


def unwrap_now(row: DataKey) -> bytes:
    """A tenant key, asked of its root key without any memory; raises KeyDestroyed, WrongRootKey and Refusal."""
    root = root_keys.known(row.root_id)
    if root is not None:
        return unwrap_by(root, row)
    own = OwnKey.objects.of(row.tenant_id).filter(root_id=row.root_id).first()
    if own is None:
        raise WrongRootKey(f"The tenant's key is wrapped by root key {row.root_id}, which is not at hand.")
    from tenants.own_keys import service  # it stands on this module

    try:
        return unwrap_by(service(own.reference), row)
    except KeyRefused as refusal:
        raise own_key_refused(str(refusal.message)) from None


def unwrap_by(root: RootKey, row: DataKey) -> bytes:
    """A tenant key, opened by this root key; touches no database."""
    bound = Bound(row.tenant_id, row.generation)
    return root.unwrap(bytes(row.wrapped), bound, root_id=row.root_id)


def own_key_refused(why: str) -> KeyRefused:
    """The one answer while a tenant's own key service says no."""
    text = _(
        "Your own key is not available to us, so nothing of yours can be opened. %(why)s"
        " Allow it again in your key service; nothing here needs a restart."
    )
    return KeyRefused(text % {"why": why}, status=403, code="own_key_refused", kind="permission_error")


def inside(tenant_id: uuid.UUID) -> AbstractContextManager[None]:
    """The tenant's scope: the one already open, or one of its own."""
    return nullcontext() if current() == tenant_id else scope(tenant_id)


def _row(tenant_id: uuid.UUID, generation: int) -> DataKey:
    row = _read("tenant_id = %s AND generation = %s", tenant_id, generation)
    if row is None:
        raise KeyDestroyed("This tenant's key was destroyed.")
    return row


def newest(tenant_id: uuid.UUID) -> DataKey:
    """The generation that wraps, held against its destruction until the transaction ends."""
    for _attempt in range(
        3
    ):  # a row that went while we waited for it leaves none: the next look finds the newer one
        row = _share(tenant_id)
        if row is None:
            continue
        if row.generation == SECRET:  # a tenant from before there were generations
            _add(tenant_id, SECRET + 1, root_keys.installation())
            continue
        return row
    raise KeyDestroyed("This tenant's key was destroyed.")


def _share(tenant_id: uuid.UUID) -> DataKey | None:
    """The newest row under FOR KEY SHARE, which many may hold at once and a DELETE waits for."""
    return _read("tenant_id = %s ORDER BY generation DESC LIMIT 1 FOR KEY SHARE", tenant_id)


def _read(condition: str, *values: object) -> DataKey | None:
    """One row, by SQL of our own: it is read for every key that is opened, and building a query costs more."""
    query = f"SELECT * FROM {DataKey._meta.db_table} WHERE {condition}"  # noqa: S608 - ours alone
    return next(iter(DataKey._base_manager.raw(query, values)), None)


def _key(row: DataKey) -> bytes:
    """The key of a row: from memory for at most CACHE_SECONDS, counted from before its root key was asked."""
    if row.is_refused:
        raise own_key_refused("")
    digest = hashlib.sha256(bytes(row.wrapped) + row.root_id.encode()).digest()
    name = row.tenant_id.bytes + digest
    known, now = _cache.get(name), time.monotonic()
    if known is None or known.fresh_until < now:
        known = _asked(name, row, known if known is not None and known.until >= now else None)
    if known.error is not None:
        raise known.error()
    return known.key


def _asked(name: bytes, row: DataKey, stale: _Opened | None) -> _Opened:
    """Ask the root key, one thread at a time: a slow service must not hold every thread of a process."""
    lock = _locks[name[-1] % len(_locks)]
    if not lock.acquire(timeout=0 if stale is not None else _PATIENCE_SECONDS):
        if stale is None:
            raise KeysUnreachable
        return stale
    try:
        known = _cache.get(name)
        if known is None or known.fresh_until < time.monotonic():
            known = _remembered(name, row)
        return known
    finally:
        lock.release()


def _remembered(name: bytes, row: DataKey) -> _Opened:
    begun = time.monotonic()
    try:
        opened = _Opened(begun + FRESH_SECONDS, begun + CACHE_SECONDS, unwrap_now(row))
    except KeysUnreachable:
        opened = _failed(KeysUnreachable)
    except KeyRefused as refusal:
        said, status, code, kind = str(refusal.message), refusal.status, refusal.code, refusal.kind
        opened = _failed(lambda: KeyRefused(said, status=status, code=code, kind=kind))
    before = _cache.get(name)
    if opened.error is KeysUnreachable and before is not None and before.key and before.until > begun:
        return before  # silent, not refused: what is known stays good for its time
    if len(_cache) >= _MOST_CACHED:
        _cache.clear()
    _cache[name] = opened
    return opened


def _failed(error: Callable[[], Exception]) -> _Opened:
    until = time.monotonic() + FAILED_SECONDS
    return _Opened(until, until, error=error)


def _derived(key: bytes, label: str) -> bytes:
    info = b"cloister/derive/v1|" + label.encode()
    return HKDF(algorithm=hashes.SHA512(), length=32, salt=None, info=info).derive(key)


def _bound(tenant_id: uuid.UUID, generation: int, place: str) -> str:
    return f"cloister/wrapped/v1|{tenant_id}|{generation}|{place}"
