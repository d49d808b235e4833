"""Rotation of a tenant's keys in the background: in batches, one transaction each, so that a kill loses nothing."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from django.db.models import BinaryField, F, Func, Max, Q
from django.utils import timezone
from django.utils.translation import gettext as _

from saas.lib.background import enqueue
from saas.lib.errors import Conflict, Refusal
from tenants import audit, root_keys, vault_keys
from tenants.audit import Actor
from tenants.models import DataKey, KeyRotation, OwnKey, Tenant
from tenants.root_keys import KeyDestroyed, RootKey
from tenants.scope import TenantOwned, TenantQuerySet, scope

AT_ONCE: Final = 200
RUN_SECONDS: Final = 600.0  # then the next task goes on, so that others have their turn
KEYS = KeyRotation.Kind.TENANT


@dataclass(frozen=True)
class _Table:
    model: type[TenantOwned]
    place: Callable[[Any], str]
    related: tuple[str, ...]


_tables: list[_Table] = []


def register(model: type[TenantOwned], place: Callable[[Any], str], *, related: tuple[str, ...] = ()) -> None:
    """Rows of `model` hold a key in `wrapped`, sealed by `vault_keys.seal_key` at `place(row)`; from AppConfig.ready.

    `related` are the foreign keys that `place` follows.
    """
    if all(one.model is not model for one in _tables):
        _tables.append(_Table(model, place, related))
        _tables.sort(key=lambda one: one.model._meta.label_lower)  # each process counts them alike


def start(tenant: Tenant, actor: Actor, *, root: RootKey | None = None) -> KeyRotation:
    """A new generation of the tenant's key (under `root`, otherwise as now), and everything wrapped again by it.

    In the tenant's scope. Raises Conflict while another rotation runs, and Refusal.
    """
    under = root or wrapping_root(tenant)
    rotation = begin(tenant, actor, KeyRotation(kind=KEYS, total=0))
    generation = vault_keys.add_generation(tenant, under)
    total = sum(_left(tenant.pk, one, generation).count() for one in _tables)
    KeyRotation.objects.of(tenant).filter(pk=rotation.pk).update(total=total)
    audit.record(
        tenant, actor, "keys.rotation_started", rotation, generation=generation, wrapped_by=under.label
    )
    return rotation


def begin(tenant: Tenant, actor: Actor, rotation: KeyRotation) -> KeyRotation:
    """Insert a rotation and send its first hint; raises Conflict while another runs. In the tenant's scope."""
    Tenant.objects.select_for_update().get(pk=tenant.pk)
    if KeyRotation.objects.of(tenant).filter(state=KeyRotation.State.RUNNING).exists():
        raise Conflict(
            _("A rotation is running. Start the next one when it is done."), code="rotation_running"
        )
    rotation.tenant_id, rotation.started_by = tenant.pk, actor.label[:200]
    rotation.save(force_insert=True)
    enqueue("tenants.rotate_keys", tenant_id=tenant.pk, rotation_id=rotation.pk)
    return rotation


def wrapping_root(tenant: Tenant) -> RootKey:
    """Which root key wraps new generations: the tenant's own where it has one, otherwise the installation's."""
    from tenants.own_keys import service

    own = OwnKey.objects.of(tenant).filter(state=OwnKey.State.ACTIVE).first()
    return service(own.reference) if own is not None else root_keys.installation()


def run(tenant_id: uuid.UUID, rotation_id: uuid.UUID, *, is_stopping: Callable[[], bool]) -> bool:
    """Go on with a rotation until it is done (True), somebody else has it, or it is time to stop (False)."""
    from tenants import resealing  # it stands on the vault, which stands below rotation

    end = time.monotonic() + RUN_SECONDS
    while not is_stopping() and time.monotonic() < end:
        try:
            with scope(tenant_id):
                rotation = _mine(tenant_id, rotation_id)
                if rotation is None:
                    return False
                if rotation.kind == KEYS:
                    if _step(rotation):
                        return True
                    continue
            if resealing.step(rotation):
                return True
        except Refusal as refusal:
            with scope(tenant_id):
                rows = KeyRotation.objects.of(tenant_id).filter(pk=rotation_id)
                rows.update(trouble=str(refusal.message)[:300], moved_at=timezone.now())
            return False
    enqueue("tenants.rotate_keys", tenant_id=tenant_id, rotation_id=rotation_id)
    return False


def _mine(tenant_id: uuid.UUID, rotation_id: uuid.UUID) -> KeyRotation | None:
    """The rotation, locked for one step; None when it is done or another process is at it."""
    rows = KeyRotation.objects.of(tenant_id).filter(pk=rotation_id, state=KeyRotation.State.RUNNING)
    return rows.select_for_update(skip_locked=True).first()


def _step(rotation: KeyRotation) -> bool:
    """Wrap one batch again, or end; True when the rotation is done. In the tenant's scope and one transaction."""
    if rotation.table >= len(_tables):
        return _finish(rotation)
    table = _tables[rotation.table]
    newest = vault_keys.newest(rotation.tenant_id)
    rows = _left(rotation.tenant_id, table, newest.generation).select_related(*table.related).order_by("pk")
    if rotation.after is not None:
        rows = rows.filter(pk__gt=rotation.after)
    batch = list(rows.select_for_update(no_key=True, of=("self",))[:AT_ONCE])
    for row in batch:
        try:
            secret = vault_keys.open_key(rotation.tenant_id, bytes(row.wrapped), place=table.place(row))
        except KeyDestroyed:
            continue  # it opens for nobody, with or without this rotation: `_finish` keeps its generation
        row.wrapped = vault_keys.seal_under(newest, secret, place=table.place(row))
    if batch:
        every: TenantQuerySet[Any] = table.model.objects.of(rotation.tenant_id)
        every.bulk_update(batch, ["wrapped"])
    rotation.done += len(batch)
    if len(batch) < AT_ONCE:
        rotation.table, rotation.after = rotation.table + 1, None
    else:
        rotation.after = batch[-1].pk
    rotation.trouble = ""
    rotation.save(update_fields=["done", "table", "after", "trouble", "moved_at"])
    return False


def _finish(rotation: KeyRotation) -> bool:
    """Destroy the generations under which nothing is left; whoever still writes under one has committed by then."""
    tenant_id = rotation.tenant_id
    newest = int(DataKey.objects.of(tenant_id).aggregate(newest=Max("generation"))["newest"])
    old = DataKey.objects.of(tenant_id).filter(generation__gt=vault_keys.SECRET, generation__lt=newest)
    list(old.select_for_update().order_by("generation"))  # waits for those who sealed under them
    left = [row for table in _tables for row in _unopened(tenant_id, table, newest)]
    if any(is_open for is_open, _generation in left):
        rotation.table, rotation.after = 0, None
        rotation.save(update_fields=["table", "after", "moved_at"])
        return False
    kept = {generation for _is_open, generation in left}
    destroyed = old.exclude(generation__in=kept).delete()[0]
    if left:
        rotation.trouble = _("%(count)d keys open for nobody and were left as they are.") % {
            "count": len(left)
        }
    rotation.state, rotation.finished_at = KeyRotation.State.DONE, timezone.now()
    rotation.save(update_fields=["state", "finished_at", "trouble", "moved_at"])
    _settle_own_key(tenant_id)
    tenant = Tenant.objects.get(pk=tenant_id)
    facts = {"generation": newest, "wrapped": rotation.done, "destroyed": destroyed}
    audit.record(tenant, audit.SYSTEM, "keys.rotated", rotation, **facts)
    return True


def _unopened(tenant_id: uuid.UUID, table: _Table, newest: int) -> list[tuple[bool, int]]:
    """(whether it opens, its generation) of each row that is not under the newest generation."""
    found = []
    for row in _left(tenant_id, table, newest).select_related(*table.related):
        wrapped = bytes(row.wrapped)
        try:
            vault_keys.open_key(tenant_id, wrapped, place=table.place(row))
        except KeyDestroyed:
            found.append((False, _generation(wrapped)))
        else:
            found.append((True, _generation(wrapped)))
    return found


def _generation(wrapped: bytes) -> int:
    try:
        return vault_keys.generation_of(wrapped)
    except KeyDestroyed:
        return vault_keys.SECRET


def _left(tenant_id: uuid.UUID, table: _Table, newest: int) -> TenantQuerySet[Any]:
    """The table's rows that are wrapped by another generation."""
    begins = Func(F("wrapped"), 1, vault_keys.HEAD_BYTES, function="substring", output_field=BinaryField())
    rows: TenantQuerySet[Any] = table.model.objects.of(tenant_id)
    return rows.alias(begins=begins).filter(~Q(begins=vault_keys.head(newest)))


def _settle_own_key(tenant_id: uuid.UUID) -> None:
    """A tenant's own key is in use once its generation alone wraps, and left once no generation is under it."""
    used = set(DataKey.objects.of(tenant_id).values_list("root_id", flat=True))
    own = OwnKey.objects.of(tenant_id).exclude(state=OwnKey.State.LEFT)
    own.exclude(root_id__in=used).update(state=OwnKey.State.LEFT, refused_at=None, reason="")
    own.filter(root_id__in=used).update(state=OwnKey.State.ACTIVE)


def left_on_old_keys(tenant: Tenant) -> int:
    """How many wrapped keys are not under the newest generation. In the tenant's scope."""
    newest = vault_keys.newest(tenant.pk)
    return sum(_left(tenant.pk, one, newest.generation).count() for one in _tables)
