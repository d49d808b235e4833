"""The ledger's hash chain: one line after another per tenant, each naming the hash of the one before."""

from __future__ import annotations

import hashlib
import hmac
import uuid
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from modeling.core.canonical import encode, exact
from modeling.models import Job, LedgerHead, PrivacyAccount, PrivacyEntry
from saas.lib import heads
from saas.lib.errors import Refusal
from saas.lib.heads import GENESIS
from tenants import vault
from tenants.models import Tenant

FORMAT = 1


class ChainBroken(Exception):
    """The ledger is not the one that was written; the message says where and how."""


@dataclass(frozen=True)
class Head:
    """The end of a tenant's ledger, to be kept outside: `mac` proves that we exported it."""

    tenant: str
    seq: int
    entry_hash: str
    mac: str

    def body(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "format": FORMAT,
            "tenant": self.tenant,
            "seq": self.seq,
            "hash": self.entry_hash,
            "mac": self.mac,
        }


def hashed(entry: PrivacyEntry) -> dict[str, Any]:
    """What an entry's hash covers: every column, floats as hexadecimal text. An export holds it as it is."""
    return {
        "format": FORMAT,
        "tenant": str(entry.tenant_id),
        "seq": entry.seq,
        "account": str(entry.account_id),
        "job": str(entry.job_id),
        "dataset_version": str(entry.dataset_version_id) if entry.dataset_version_id else None,
        "kind": str(entry.kind),
        "partition": entry.partition,
        "mechanism": exact(entry.mechanism),
        "facts": exact(entry.facts),
        "rdp": [float(value).hex() for value in entry.rdp],
        "epsilon": None if entry.epsilon is None else float(entry.epsilon).hex(),
        "epsilon_replace_one": None
        if entry.epsilon_replace_one is None
        else float(entry.epsilon_replace_one).hex(),
        "at": entry.at.isoformat(),
        "previous_hash": entry.previous_hash,
    }


def hash_of(entry: PrivacyEntry) -> str:
    """SHA-256 over the canonical JSON of `hashed`, as hex: anyone can recompute it from an export."""
    return hashlib.sha256(encode(hashed(entry))).hexdigest()


def exported(tenant: Tenant) -> dict[str, Any]:
    """The whole ledger to be checked elsewhere: per entry what its hash covers, names a person knows, and the head."""
    head = export_head(tenant)
    rows = PrivacyEntry.objects.of(tenant).filter(seq__lte=head.seq).order_by("seq")
    return {
        "object": "privacy.ledger",
        "format": FORMAT,
        "tenant": tenant.slug,
        "head": head.body(),
        "entries": [
            {
                "seq": entry.seq,
                "at": entry.at.isoformat(),
                "kind": str(entry.kind),
                "job": entry.job.public_id,
                "dataset": entry.dataset_version.dataset.public_id if entry.dataset_version else None,
                "hashed": hashed(entry),
                "entry_hash": entry.entry_hash,
            }
            for entry in rows.select_related("job", "dataset_version__dataset").iterator(chunk_size=500)
        ],
    }


def lock(tenant: Tenant) -> LedgerHead:
    """The tenant's ledger head, locked until the transaction ends: one writer of the ledger at a time."""
    heads = LedgerHead.objects.of(tenant)
    heads.bulk_create([LedgerHead(tenant=tenant)], ignore_conflicts=True)
    return heads.select_for_update().get()


def append(head: LedgerHead, job: Job, account: PrivacyAccount, *, kind: str, **fields: Any) -> PrivacyEntry:
    """Write the next entry and move the locked head to it, both in the caller's transaction."""
    entry = PrivacyEntry(
        tenant_id=head.tenant_id,
        seq=head.seq + 1,
        account=account,
        job=job,
        dataset_version_id=job.dataset_version_id,
        kind=kind,
        at=timezone.now(),
        previous_hash=head.entry_hash,
        **fields,
    )
    entry.entry_hash = hash_of(entry)
    entry.save(force_insert=True)
    head.seq, head.entry_hash = entry.seq, entry.entry_hash
    head.save(update_fields=["seq", "entry_hash"])
    transaction.on_commit(lambda: heads.keep(_name(job.tenant_id), entry.seq, entry.entry_hash))
    return entry


def _name(tenant_id: uuid.UUID) -> str:
    return f"ledger-{tenant_id}"


def require_newest(head: LedgerHead) -> None:
    """Refuse new private jobs while the ledger is older than the head kept beside the database (a restored backup)."""
    seq, entry_hash = heads.kept(_name(head.tenant_id))
    if seq > head.seq or (seq == head.seq and entry_hash != head.entry_hash):
        raise Refusal(
            _(
                "The privacy ledger is older than its kept head, so it would under-count. It must be replayed first."
            ),
            status=503,
            code="ledger_behind",
            kind="server_error",
        )


def export_head(tenant: Tenant) -> Head:
    """The head as it stands, authenticated under a key derived from the tenant's."""
    head = LedgerHead.objects.of(tenant).first()
    seq, entry_hash = (head.seq, head.entry_hash) if head else (0, GENESIS)
    return Head(str(tenant.pk), seq, entry_hash, _mac(tenant, seq, entry_hash))


def verify(tenant: Tenant, *, exported: Head | None = None) -> int:
    """Recompute the whole chain; returns the number of entries, raises ChainBroken at the first fault.

    A cut tail leaves a shorter but sound chain: only the head, or better one exported earlier, shows it.
    """
    seq, previous = 0, GENESIS
    exported_seen = exported is None or exported.seq == 0
    if exported and not hmac.compare_digest(exported.mac, _mac(tenant, exported.seq, exported.entry_hash)):
        raise ChainBroken("The exported head is not one of ours.")
    for entry in PrivacyEntry.objects.of(tenant).order_by("seq").iterator(chunk_size=500):
        seq += 1
        if entry.seq != seq:
            raise ChainBroken(f"Entry {seq} is missing.")
        if entry.previous_hash != previous:
            raise ChainBroken(f"Entry {seq} does not follow the entry before it.")
        if hash_of(entry) != entry.entry_hash:
            raise ChainBroken(f"Entry {seq} was changed.")
        previous = entry.entry_hash
        if exported and seq == exported.seq:
            if previous != exported.entry_hash:
                raise ChainBroken(f"Entry {seq} is not the one in the exported head.")
            exported_seen = True
    head = LedgerHead.objects.of(tenant).first()
    if (head.seq, head.entry_hash) != (seq, previous) if head else seq != 0:
        raise ChainBroken(f"The chain ends at {seq}, the head says otherwise: entries were cut or added.")
    if not exported_seen:
        raise ChainBroken(f"The chain ends at {seq}, the exported head is later: the tail was cut.")
    return seq


def _mac(tenant: Tenant, seq: int, entry_hash: str) -> str:
    key = vault.derive(tenant, "ledger-head")
    return hmac.new(key, f"{FORMAT}|{tenant.pk}|{seq}|{entry_hash}".encode(), hashlib.sha256).hexdigest()
