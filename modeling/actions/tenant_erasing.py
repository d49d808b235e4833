"""Erasing a tenant: steps that can each be repeated, so that a death between or within them costs nothing.

Nobody gets in any more; the keys are destroyed together with the tombstone and the names; then bytes, rows, engines'
memory and the subscription go. What stays is in STAYS, each with its reason.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from asgiref.sync import async_to_sync
from django.apps import apps
from django.db import connection
from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext as _

from billing.ending import end_payments
from modeling.actions import holds, jobs, tenant_erasure
from modeling.models import Batch, LedgerHead
from modeling.serving.engines import PURGE_SECONDS, ask_engines
from modeling.serving.wire import EngineRefusal
from saas.lib.errors import Conflict, Refusal
from tenants import audit, vault, vault_keys
from tenants.actions import announce_revocation, slug_digest
from tenants.models import ApiKeySecret, Member, ReservedSlug, Tenant, TenantErasure, Tombstone
from tenants.scope import TenantForeignKey, TenantOwned, scope

State = TenantErasure.State
NAME: Final = "Deleted tenant"
AT_ONCE: Final = 5_000  # rows of one table in one transaction
LAST_LOOK: Final = timedelta(hours=1)  # after which nothing that began before the erasure still writes
# Rows that stay, and why; a table of tenants' rows that is not here is emptied.
STAYS: Final = {
    "tenants.TenantErasure": "the fact: that, when and at whose kind of wish; without a name",
    "tenants.Tombstone": "what makes a restored backup forget again: opaque ids and keyed hashes",
    "billing.Subscription": "bookkeeping: which customer at Stripe paid for which plan; invoices are kept by law",
    "billing.UsageEvent": "bookkeeping: amounts and times that invoices were made of; never contents",
}


def run(tenant_id: uuid.UUID) -> bool:
    """Begin the erasure that is due, or go on with it; whether nothing is left to do. Safe in several processes."""
    if not close(tenant_id):
        return False
    for step in STEPS:
        step(tenant_id)
    with scope(tenant_id):
        return not TenantErasure.objects.of(tenant_id).filter(unfinished()).exists()


def unfinished() -> Q:
    """What the timetable takes up: due, under way, or not yet told everywhere."""
    now = timezone.now()
    is_left = Q(objects_at=None) | Q(engines_at=None) | Q(billing_at=None)
    to_look = Q(looked_at=None, erased_at__lt=now - LAST_LOOK)
    is_due = Q(state=State.REQUESTED, due_at__lte=now)
    return is_due | Q(state=State.RUNNING) | Q(is_left | to_look, state=State.ERASED)


def close(tenant_id: uuid.UUID) -> bool:
    """Let nobody in and take all work from the workers; False while nothing is due or a legal hold stands."""
    with scope(tenant_id):
        tenant = Tenant.objects.select_for_update().get(pk=tenant_id)
        due = Q(state=State.REQUESTED, due_at__lte=timezone.now())
        asked = TenantErasure.objects.of(tenant).select_for_update().filter(due).first()
        if asked is None:
            return tenant.state == Tenant.State.ERASED
        try:
            holds.require_free(tenant)
        except Conflict:
            _note(asked, _("A legal hold keeps this tenant's data; it is erased once the hold is released."))
            return False
        asked.state, asked.trouble = State.RUNNING, ""
        asked.save(update_fields=["state", "trouble"])
        _close(tenant)
    return True


def _close(tenant: Tenant) -> None:
    Tenant.objects.filter(pk=tenant.pk).update(state=Tenant.State.ERASED)
    tenant.state = Tenant.State.ERASED
    ApiKeySecret.objects.of(tenant).delete()
    jobs.stop_all(tenant)
    open_batches = Batch.objects.of(tenant).filter(state__in=Batch.OPEN)
    open_batches.update(epoch=F("epoch") + 1, lease_until=None)  # whoever holds one writes nothing more
    announce_revocation("tenant", tenant, tenant.slug)


def shred(tenant_id: uuid.UUID) -> None:
    """One transaction: the keys, the tombstone, who belonged there, and the names. From here on nothing decrypts."""
    with scope(tenant_id):
        tenant = Tenant.objects.select_for_update().get(pk=tenant_id)
        row = TenantErasure.objects.of(tenant).filter(state=State.RUNNING, shredded_at=None).first()
        if row is None:
            return
        try:
            holds.require_free(tenant)
        except Conflict:  # placed in the moment before the door was closed
            _reopen(tenant, row)
            return
        tenant_erasure.tell(tenant, tenant_erasure.owners_of(tenant), "erased", reason=row.reason)
        _shred(tenant, row)


def _reopen(tenant: Tenant, row: TenantErasure) -> None:
    state = Tenant.State.SUSPENDED if tenant.suspended_reason else Tenant.State.ACTIVE
    Tenant.objects.filter(pk=tenant.pk).update(state=state)
    TenantErasure.objects.of(tenant).filter(pk=row.pk).update(state=State.REQUESTED)


def _shred(tenant: Tenant, row: TenantErasure) -> None:
    ledger = LedgerHead.objects.of(tenant).values_list("seq", "entry_hash").first()
    log = audit.newest(tenant)
    evidence = {"audit": [log.seq, log.hash], "ledger": list(ledger or (0, audit.BEGINNING)), "rows": {}}
    ReservedSlug.objects.bulk_create([ReservedSlug(digest=slug_digest(tenant.slug))], ignore_conflicts=True)
    vault.shred_tenant(tenant)
    vault_keys.forget(tenant.pk)
    Member.objects.of(tenant).delete()
    Tenant.objects.filter(pk=tenant.pk).update(
        name=NAME, slug=f"deleted-{tenant.pk.hex}", suspended_reason="", erase_at=None
    )
    TenantErasure.objects.of(tenant).filter(pk=row.pk).update(shredded_at=timezone.now(), evidence=evidence)
    announce_revocation("tenant", tenant, tenant.slug)


def remove_objects(tenant_id: uuid.UUID) -> None:
    """The ciphertext, which nobody can read any more; a store that fails is asked again later."""

    def remove() -> None:
        vault.store().delete_all(str(tenant_id))

    _outside(tenant_id, "objects_at", remove)


def remove_rows(tenant_id: uuid.UUID) -> None:
    """Every row of every table but STAYS: first in portions what no other row points at, then the rest together."""
    with scope(tenant_id):
        rows = TenantErasure.objects.of(tenant_id)
        row = rows.filter(state__in=(State.RUNNING, State.ERASED)).exclude(shredded_at=None).last()
    if row is None or (row.state == State.ERASED and not _is_last_look(row)):
        return
    leaves, others = erased_models()
    for model in leaves:
        while True:
            with scope(tenant_id):
                count = _delete(model, tenant_id, most=AT_ONCE)
                _count(row.pk, model, count, tenant_id)
            if count < AT_ONCE:
                break
    with scope(
        tenant_id
    ):  # keys between tenant rows are looked at when the transaction ends: any order will do
        for model in others:
            _count(row.pk, model, _delete(model, tenant_id), tenant_id)
        _finish(tenant_id, row)


def _is_last_look(row: TenantErasure) -> bool:
    return row.looked_at is None and row.erased_at is not None and row.erased_at < timezone.now() - LAST_LOOK


def _finish(tenant_id: uuid.UUID, row: TenantErasure) -> None:
    rows, now = TenantErasure.objects.of(tenant_id), timezone.now()
    rows.update(requested_by="", reason="")  # those that were withdrawn, too
    if row.state == State.ERASED:
        rows.filter(pk=row.pk).update(looked_at=now)
        vault.store().delete_all(str(tenant_id))
    else:
        rows.filter(pk=row.pk, state=State.RUNNING).update(state=State.ERASED, erased_at=now)


def erased_models() -> tuple[list[type[TenantOwned]], list[type[TenantOwned]]]:
    """All tables of tenants' rows but STAYS: those that no tenant row points at, and the others."""
    owned = [model for model in apps.get_models() if issubclass(model, TenantOwned)]
    pointed_at = {
        field.related_model
        for model in owned
        for field in model._meta.local_fields
        if isinstance(field, TenantForeignKey)
    }
    going = [model for model in owned if model._meta.label not in STAYS]
    return [one for one in going if one not in pointed_at], [one for one in going if one in pointed_at]


def _delete(model: type[TenantOwned], tenant_id: uuid.UUID, *, most: int | None = None) -> int:
    """By SQL of our own: nothing is read, and Django's cascade would look through every table for every row."""
    table = connection.ops.quote_name(model._meta.db_table)
    which, values = "tenant_id = %s", [tenant_id]
    if most is not None:
        which = f"id IN (SELECT id FROM {table} WHERE {which} LIMIT {most:d})"  # noqa: S608 - ours alone
    with connection.cursor() as cursor:
        cursor.execute(f"DELETE FROM {table} WHERE {which}", values)  # noqa: S608
        return int(cursor.rowcount)


def _count(pk: uuid.UUID, model: type[TenantOwned], count: int, tenant_id: uuid.UUID) -> None:
    if not count:
        return
    row = TenantErasure.objects.of(tenant_id).select_for_update().get(pk=pk)
    counts = row.evidence.setdefault("rows", {})
    counts[model._meta.label] = counts.get(model._meta.label, 0) + count
    row.save(update_fields=["evidence"])


def purge_engines(tenant_id: uuid.UUID) -> None:
    """Models in the engines' memory: gateways told them when the door was closed; now none can come back."""

    def purge() -> None:
        asked = async_to_sync(ask_engines)
        asked("purge", tenant=str(tenant_id), seconds=PURGE_SECONDS, version=None)

    _outside(tenant_id, "engines_at", purge)


def end_billing(tenant_id: uuid.UUID) -> None:
    """The subscription at Stripe, with a last invoice."""
    _outside(tenant_id, "billing_at", lambda: end_payments(tenant_id))


def _outside(tenant_id: uuid.UUID, name: str, work: Callable[[], object]) -> None:
    """Do what is outside of this database and write down that it is done; what fails waits for the next round."""
    with scope(tenant_id):
        rows = TenantErasure.objects.of(tenant_id).filter(**{name: None}).exclude(shredded_at=None)
        row = rows.filter(state__in=(State.RUNNING, State.ERASED)).first()
    if row is None:
        return
    done: dict[str, Any] = {name: timezone.now(), "trouble": ""}
    try:
        work()
    except (Refusal, EngineRefusal, OSError) as trouble:
        done = {"trouble": f"{name.removesuffix('_at')}: {trouble}"[:300]}
    with scope(tenant_id):
        TenantErasure.objects.of(tenant_id).filter(pk=row.pk).update(**done)


def _note(row: TenantErasure, trouble: str) -> None:
    TenantErasure.objects.of(row.tenant_id).filter(pk=row.pk).update(trouble=trouble[:300])


STEPS: tuple[Callable[[uuid.UUID], None], ...] = (
    shred,
    remove_objects,
    remove_rows,
    purge_engines,
    end_billing,
)


def erase_again(tenant_id: uuid.UUID) -> None:
    """Erase what a restored backup brought back, in the transaction that is open; the rest is the timetable's.

    No hold counts: the keys were destroyed before it was brought back.
    """
    tenant = Tenant.objects.select_for_update().get(pk=tenant_id)
    rows = TenantErasure.objects.of(tenant)
    row = rows.exclude(state=State.WITHDRAWN).last()
    if row is None:
        row = rows.create(by_kind="system", state=State.RUNNING, due_at=timezone.now())
    if row.shredded_at is None:
        rows.filter(pk=row.pk).update(state=State.RUNNING)
        _close(tenant)
        _shred(tenant, row)
    rows.filter(pk=row.pk).update(objects_at=None)  # they may have been brought back, too
    remove_rows(tenant_id)


def waiting() -> set[uuid.UUID]:
    """The tenants whose erasure is to go on, read across them as operator."""
    return set(TenantErasure.objects.everywhere().filter(unfinished()).values_list("tenant_id", flat=True))


def erase_revived() -> int:
    """Erase tenants whose rows came back from an older backup than their tombstone did; returns how many."""
    ended = Tombstone.objects.everywhere().filter(kind="tenant").exclude(tenant__state=Tenant.State.ERASED)
    found = set(ended.values_list("tenant_id", flat=True))
    for tenant_id in found:
        with scope(tenant_id):
            erase_again(tenant_id)
    return len(found)
