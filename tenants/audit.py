"""The audit log: one entry for every change, chained per tenant by HMAC, insert only, with its head exported."""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from django.conf import settings
from django.db import connection, models, transaction
from django.http import HttpRequest
from django.utils import timezone

from tenants import vault
from tenants.models import AuditEntry, Tenant

BEGINNING: Final = "0" * 64
LABEL: Final = "audit"


@dataclass(frozen=True)
class Actor:
    """Who made a change: a kind (user, key, operator, system), a stable id and the words shown to people."""

    kind: str
    id: str
    label: str

    @classmethod
    def from_request(cls, request: HttpRequest) -> Actor:
        """The API key of a call (also through DRF), otherwise the person who is signed in."""
        caller = getattr(request, "auth", None)
        if caller is not None:
            return caller.actor  # type: ignore[no-any-return]
        user = request.user
        return cls("user", str(user.pk), user.email)  # type: ignore[union-attr]


SYSTEM: Final = Actor("system", "system", "Cloister")


@dataclass(frozen=True)
class Head:
    """The newest entry of a chain: its number (0 when empty) and hash."""

    seq: int
    hash: str


@dataclass(frozen=True)
class Verdict:
    """Whether a chain is whole; when not, the first entry number at fault and why."""

    is_whole: bool
    entries: int
    broken_seq: int | None = None
    reason: str = ""


def record(
    tenant: Tenant, actor: Actor, action: str, target: models.Model | None = None, **details: Any
) -> AuditEntry:
    """Append an entry in the transaction of the change itself; call inside the tenant's scope."""
    with connection.cursor() as cursor:  # one writer at a time per chain, until this transaction ends
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"audit:{tenant.pk}"])
    head = newest(tenant)
    entry = AuditEntry(
        tenant_id=tenant.pk,
        seq=head.seq + 1,
        at=timezone.now(),
        actor_kind=actor.kind,
        actor=actor.label[:200],
        action=action,
        object_type=target._meta.model_name or "" if target is not None else "",
        object_id=_public_name(target)[:80] if target is not None else "",
        details=json.loads(json.dumps(details)),
        previous_hash=head.hash,
    )
    entry.entry_hash = _hash(vault.derive(tenant, LABEL), entry)
    entry.save(force_insert=True)
    transaction.on_commit(lambda: _export(tenant.pk, Head(entry.seq, entry.entry_hash)))
    return entry


def verify(tenant: Tenant, head: Head | None = None, *, newest_only: int = 0) -> Verdict:
    """Walk the chain and recompute every hash; `head` (or the exported one) also finds a cut tail.

    `newest_only` walks that many of the newest entries and takes the hash before them as given; 0 walks all.
    """
    key = vault.derive(tenant, LABEL)
    expected = head or exported_head(tenant)
    rows = AuditEntry.objects.of(tenant).order_by("seq")
    before = max(newest(tenant).seq - newest_only, 0) if newest_only else 0
    anchor = rows.filter(seq=before).values_list("entry_hash", flat=True).first()
    previous, seq = anchor or BEGINNING, before
    for entry in rows.filter(seq__gt=before).iterator(chunk_size=1000):
        seq += 1
        if entry.seq != seq:
            return Verdict(False, seq - 1, seq, "missing")
        if entry.previous_hash != previous or not hmac.compare_digest(_hash(key, entry), entry.entry_hash):
            return Verdict(False, seq - 1, seq, "changed")
        if expected.seq == seq and expected.hash != entry.entry_hash:
            return Verdict(False, seq - 1, seq, "rewritten")
        previous = entry.entry_hash
    if expected.seq > seq:
        return Verdict(False, seq, seq + 1, "cut")
    return Verdict(True, seq)


def exported_head(tenant: Tenant) -> Head:
    """The head last written outside of the database."""
    file = _head_file(tenant.pk)
    if not file.exists():
        return Head(0, BEGINNING)
    kept = json.loads(file.read_text() or "{}")
    return Head(kept.get("seq", 0), kept.get("hash", BEGINNING))


def export_lines(tenant: Tenant) -> Iterator[str]:
    """The whole log as JSON lines, oldest first, with the hashes an auditor compares."""
    for entry in AuditEntry.objects.of(tenant).order_by("seq").iterator(chunk_size=1000):
        fields = _fields(entry) | {"previous_hash": entry.previous_hash, "entry_hash": entry.entry_hash}
        fields["tenant"] = tenant.slug  # the uuid is for the hash only and never leaves
        yield json.dumps(fields, ensure_ascii=False, sort_keys=True) + "\n"


def newest(tenant: Tenant) -> Head:
    """The head of the chain as the database has it."""
    last = AuditEntry.objects.of(tenant).order_by("-seq").values_list("seq", "entry_hash").first()
    return Head(*last) if last else Head(0, BEGINNING)


def _fields(entry: AuditEntry) -> dict[str, Any]:
    return {
        "format": 1,
        "tenant": str(entry.tenant_id),
        "seq": entry.seq,
        "at": _moment(entry.at),
        "actor_kind": entry.actor_kind,
        "actor": entry.actor,
        "action": entry.action,
        "object_type": entry.object_type,
        "object_id": entry.object_id,
        "details": entry.details,
    }


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _hash(key: bytes, entry: AuditEntry) -> str:
    content = json.dumps(_plain(_fields(entry)), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hmac.new(key, f"{entry.previous_hash}|{content}".encode(), hashlib.sha256).hexdigest()


def _plain(value: Any) -> Any:
    """Numbers as exact decimal text: PostgreSQL's jsonb may return 1e22 as a whole number."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{Decimal(repr(value)).normalize() + 0:f}"
    return value


def _public_name(target: models.Model) -> str:
    for name in ("public_id", "slug", "email", "name"):
        value = getattr(target, name, None)
        if value:
            return str(value)
    user = getattr(target, "user", None)
    return str(user.email) if user is not None else str(target.pk)


def _head_file(tenant_id: uuid.UUID) -> Path:
    return Path(settings.DATA_DIR) / "heads" / f"audit-{tenant_id}.json"


def _export(tenant_id: uuid.UUID, head: Head) -> None:
    """Keep the newest head beside the database; commits may arrive here out of order, so only forward."""
    file = _head_file(tenant_id)
    file.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT, 0o600), "r+") as kept:
        fcntl.flock(kept, fcntl.LOCK_EX)
        if json.loads(kept.read() or "{}").get("seq", 0) < head.seq:
            kept.seek(0)
            kept.truncate()
            kept.write(json.dumps({"seq": head.seq, "hash": head.hash}))
