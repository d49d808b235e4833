"""The nightly look at the object store: bytes that no row owns are removed, rows without bytes are reported."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from time import time as clock
from typing import Final

from django.conf import settings
from django.utils import timezone

from saas.lib import exported
from saas.lib.object_store import ObjectStore, Stored
from tenants.models import StoreSweep, Tenant, VaultObject
from tenants.scope import OPERATOR, identity
from tenants.tombstones import KEY_BACKUP_DAYS
from tenants.vault import store
from tenants.vault_keys import inside

DAY: Final = 24 * 3600.0
# Bytes without a row are few. Many of them mean that an old backup of the database came back, or the wrong one: they
# stay until no backup of keys can open them any more.
FEW: Final = 100
FEW_SHARE: Final = 0.05
_PAGE: Final = 1_000
_MOST_ORPHANS: Final = 10_000  # of one tenant in one night; the rest are there tomorrow
log = logging.getLogger("cloister.sweep")


@dataclass
class Swept:
    """What was found for one tenant."""

    objects: int = 0
    removed: int = 0
    left: int = 0  # orphans that stay, because there are too many of them
    missing: list[str] = field(default_factory=list)  # ids of objects whose bytes are not there


def sweep(tenant: Tenant | uuid.UUID | str) -> Swept:
    """Remove a tenant's orphans and day-old drafts, look for rows whose bytes are missing, and write it down.

    Only what nobody touched for a day: a writer may stream for hours before its row exists. Nobody can read it anyway:
    its key was never kept. Rows without bytes are never removed: the bytes may come back.
    """
    tenant_id, where, now = identity(tenant), store(), clock()
    found = Swept()
    orphans: list[Stored] = []
    for stored in _compare(tenant_id, where, found):
        if stored.modified < now - DAY and len(orphans) < _MOST_ORPHANS:
            orphans.append(stored)
    is_few = len(orphans) <= max(FEW, FEW_SHARE * found.objects)
    oldest = now - (DAY if is_few else KEY_BACKUP_DAYS * DAY)
    for stored in orphans:
        if stored.modified < oldest:
            where.delete(stored.key)
            found.removed += 1
        else:
            found.left += 1
    for draft in list(where.drafts(str(tenant_id))):
        if draft.touched < now - DAY:
            where.discard(draft)
            found.removed += 1
    _write_down(tenant_id, found)
    return found


def sweep_strangers() -> int:
    """Remove what lies under the names of tenants that do not exist; returns how many names.

    Those whose end is on a tombstone go at once, others when no backup of keys can open their bytes any more.
    """
    where = store()
    living = Tenant.objects.using(OPERATOR).exclude(state=Tenant.State.ERASED)
    known = {str(pk) for pk in living.values_list("pk", flat=True)}
    lines = exported.lines(settings.TOMBSTONES_DIR)
    ended = {line["tenant"] for line in lines if line["kind"] == "tenant"}
    removed = 0
    for name in where.folders():
        if name in known or not _is_tenant(name):
            continue
        youngest = max((stored.modified for stored in where.list(name)), default=0.0)
        if name in ended or youngest < clock() - KEY_BACKUP_DAYS * DAY:
            where.delete_all(name)
            removed += 1
        else:
            log.error("objects of tenant %s lie in the store, and this database does not know it", name)
    return removed


def _compare(tenant_id: uuid.UUID, where: ObjectStore, found: Swept) -> Iterator[Stored]:
    """The bytes without a row; counts objects and collects what is missing. Both sides come sorted, in pages."""
    listed = where.list(str(tenant_id))
    stored = next(listed, None)
    for row in _rows(tenant_id):
        key = f"{tenant_id}/{row.pk}/{row.version}"
        while stored is not None and stored.key < key:
            yield stored
            stored = next(listed, None)
        found.objects += 1
        if stored is not None and stored.key == key:
            stored = next(listed, None)
        elif _is_missing(row, where, key):
            found.missing.append(str(row.pk))
    while stored is not None:
        yield stored
        stored = next(listed, None)


def _rows(tenant_id: uuid.UUID) -> Iterator[VaultObject]:
    """Living objects by id; no transaction stays open between pages."""
    after = uuid.UUID(int=0)
    while True:
        with inside(tenant_id):
            rows = (
                VaultObject.objects.of(tenant_id)
                .filter(destroyed_at=None, pk__gt=after)
                .exclude(sealed_bytes=0)
            )
            page = list(rows.order_by("pk")[:_PAGE])
        yield from page
        if len(page) < _PAGE:
            return
        after = page[-1].pk


def _is_missing(row: VaultObject, where: ObjectStore, key: str) -> bool:
    """Looked at again: the object may be younger than the listing, or have been destroyed since."""
    if where.stat(key) is not None:
        return False
    with inside(row.tenant_id):
        return VaultObject.objects.of(row.tenant_id).filter(pk=row.pk, destroyed_at=None).exists()


def _write_down(tenant_id: uuid.UUID, found: Swept) -> None:
    if found.missing:
        log.error("%d objects of tenant %s have no bytes in the store", len(found.missing), tenant_id)
    if found.left:
        log.error("%d objects of tenant %s have no row: is this an old database?", found.left, tenant_id)
    values = {
        "at": timezone.now(),
        "objects_seen": found.objects,
        "removed": found.removed,
        "left": found.left,
        "missing": len(found.missing),
        "missing_ids": found.missing[:100],
    }
    with inside(tenant_id):
        StoreSweep.objects.of(tenant_id).update_or_create(tenant_id=tenant_id, defaults=values)


def _is_tenant(name: str) -> bool:
    try:
        return str(uuid.UUID(name)) == name
    except ValueError:
        return False
