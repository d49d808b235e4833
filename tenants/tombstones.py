"""What was destroyed for good, told again to a restored backup: tombstones in the database and outside of it.

`note()` writes a row inside the destroying transaction; after the commit the same line goes to TOMBSTONES_DIR, which no
backup brings back. A restored database lacks the rows that came after its backup: exactly those are replayed before it
serves anyone. Kinds and their references: object "<its uuid>", dataset "<its uuid>", unit "<dataset uuid>:<handle in
hex>", tenant "". A reference never says a name.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final, TypeVar

from django.conf import settings
from django.db import connections, transaction
from django.utils import timezone

from saas.lib import exported
from tenants.models import Tenant, Tombstone
from tenants.scope import OPERATOR, current, identity, scope

KEY_BACKUP_DAYS: Final = 30  # how long a backup of keys may live, see the README
_HORIZON: Final = timedelta(days=2 * KEY_BACKUP_DAYS)
_AT_ONCE: Final = 1_000
_NAMESPACE: Final = uuid.UUID("6f0f5b6e-5a0c-4b57-9f43-6d3a8f0f7c11")
_UNREPLAYED: Final = """
SELECT line.id FROM unnest(%s::uuid[], %s::uuid[]) AS line (id, tenant)
WHERE EXISTS (SELECT FROM tenants_tenant WHERE tenants_tenant.id = line.tenant)
AND (%s OR NOT EXISTS (SELECT FROM tenants_tombstone WHERE tenants_tombstone.id = line.id))
"""
Applier = Callable[[uuid.UUID, str], object]
_appliers: dict[str, Applier] = {}
T = TypeVar("T", bound=Applier)


def applies(kind: str) -> Callable[[T], T]:
    """Register what destroys a kind of thing again: function(tenant_id, reference), inside the tenant's scope.

    It is called for things that are already gone too, and then does nothing.
    """

    def register(function: T) -> T:
        _appliers[kind] = function
        return function

    return register


def note(tenant: Tenant | uuid.UUID | str, kind: str, *references: str) -> None:
    """Write down what is destroyed, inside the tenant's scope and the destroying transaction; again does nothing."""
    tenant_id = identity(tenant)
    now = timezone.now()
    rows = [_row(tenant_id, kind, reference, now) for reference in references]
    Tombstone.objects.of(tenant_id).bulk_create(rows, ignore_conflicts=True)
    transaction.on_commit(
        lambda: exported.append(settings.TOMBSTONES_DIR, map(_line, rows), at=now), robust=True
    )


def unreplayed(cursor: Any, *, everything: bool = False) -> list[dict[str, Any]]:
    """The lines outside whose rows the operator's database lacks, oldest first; `everything`: every line there is.

    Lines older than any backup of keys may be are left out, unless everything is asked for, and so are those of
    tenants that this database does not know: it holds nothing of theirs. One query, and none without lines.
    """
    since = None if everything else timezone.now() - _HORIZON
    found: dict[str, dict[str, Any]] = {}
    for line in exported.lines(settings.TOMBSTONES_DIR, since=since):
        found.setdefault(line["id"], line)
    if not found:
        return []
    cursor.execute(_UNREPLAYED, [list(found), [line["tenant"] for line in found.values()], everything])
    wanted = {str(row[0]) for row in cursor.fetchall()}
    return [line for id, line in found.items() if id in wanted]  # noqa: A001


def replay(*, everything: bool = False) -> int:
    """Destroy again what a restored backup brought back; returns how many tombstones were applied.

    Then lines that a dying process did not write outside are written. Idempotent, and safe in several processes at
    once. Raises LookupError for a kind that nothing applies: then nobody may serve.
    """
    by_tenant: dict[uuid.UUID, list[dict[str, Any]]] = defaultdict(list)
    with connections[OPERATOR].cursor() as cursor:
        told = unreplayed(cursor, everything=everything)
    for line in told:
        if line["kind"] not in _appliers:
            raise LookupError(
                f"Nothing destroys a {line['kind']} again: is this an older version of Cloister?"
            )
        by_tenant[uuid.UUID(line["tenant"])].append(line)
    for tenant_id, lines in by_tenant.items():
        for some in _chunks(lines):
            with scope(tenant_id):
                for line in some:
                    _appliers[line["kind"]](tenant_id, line["reference"])
                rows = [_row(tenant_id, line["kind"], line["reference"], _when(line)) for line in some]
                Tombstone.objects.of(tenant_id).bulk_create(rows, ignore_conflicts=True)
    export_missing()
    return sum(map(len, by_tenant.values()))


def export_missing() -> int:
    """Write outside what a process committed and did not live to write; returns how many lines."""
    since = timezone.now() - _HORIZON
    outside = {uuid.UUID(line["id"]) for line in exported.lines(settings.TOMBSTONES_DIR)}
    rows = Tombstone.objects.everywhere().filter(at__gte=since).order_by("at")
    missing = [row for row in rows.iterator(chunk_size=_AT_ONCE) if row.pk not in outside]
    if missing:
        exported.append(settings.TOMBSTONES_DIR, map(_line, missing), at=timezone.now())
    return len(missing)


def is_noted(tenant: Tenant | uuid.UUID | str, kind: str, reference: str) -> bool:
    """Whether this was destroyed for good; inside the tenant's scope."""
    tenant_id = identity(tenant)
    if current() != tenant_id:
        return False
    return Tombstone.objects.of(tenant_id).filter(pk=_id(tenant_id, kind, reference)).exists()


def _row(tenant_id: uuid.UUID, kind: str, reference: str, at: datetime) -> Tombstone:
    return Tombstone(
        id=_id(tenant_id, kind, reference), tenant_id=tenant_id, kind=kind, reference=reference, at=at
    )


def _id(tenant_id: uuid.UUID, kind: str, reference: str) -> uuid.UUID:
    """The same thing destroyed twice is one tombstone."""
    return uuid.uuid5(_NAMESPACE, f"{tenant_id}|{kind}|{reference}")


def _line(row: Tombstone) -> dict[str, Any]:
    return {
        "id": str(row.pk),
        "tenant": str(row.tenant_id),
        "kind": row.kind,
        "reference": row.reference,
        "at": row.at.isoformat(),
    }


def _when(line: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(line["at"])


def _chunks(items: Iterable[Any]) -> Iterable[list[Any]]:
    rest = iter(items)
    while some := list(islice(rest, _AT_ONCE)):
        yield some
