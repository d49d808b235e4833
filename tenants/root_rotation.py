"""Rotation of the root key: all tenants' keys wrapped again by its newest version, then the earlier ones destroyed."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass

from django.db import transaction

from tenants import audit, root_keys, vault_keys
from tenants.models import DataKey, Tenant
from tenants.root_keys import Bound, RootKey
from tenants.scope import OPERATOR, scope


@dataclass(frozen=True, slots=True)
class Done:
    """How far a rotation of the root key is."""

    tenants: int
    keys: int


def rotate(*, is_new: bool) -> Iterator[Done]:
    """Make a new version of the root key (`is_new`), and wrap tenant after tenant again; then retire earlier versions.

    Killed half-way, call it again with `is_new=False`: what was wrapped stays, and every version is kept until all is.
    Tenants whose own key wraps theirs are left alone. Opens each tenant's scope; yields after each.
    """
    root = root_keys.installation()
    if is_new:
        root.rotate()
    keys = 0
    for number, tenant_id in enumerate(_tenants(), 1):
        keys += _rewrap(tenant_id, root)
        yield Done(number, keys)
    _retire(root)


def _tenants() -> list[uuid.UUID]:
    return list(Tenant.objects.using(OPERATOR).order_by("pk").values_list("pk", flat=True))


def _rewrap(tenant_id: uuid.UUID, root: RootKey) -> int:
    count = 0
    with scope(tenant_id):
        vault_keys.hold_root_keys()
        for row in DataKey.objects.of(tenant_id).select_for_update(no_key=True).order_by("generation"):
            before = root_keys.known(row.root_id)
            if before is None:
                continue  # the tenant's own key wraps it
            wrapped, bound = bytes(row.wrapped), Bound(tenant_id, row.generation)
            if root.knows(row.root_id):
                made = root.rewrap(wrapped, bound, root_id=row.root_id)
            else:
                made = root.wrap(before.unwrap(wrapped, bound, root_id=row.root_id), bound)
            rows = DataKey.objects.of(tenant_id).filter(pk=row.pk)
            count += rows.update(wrapped=made.content, root_id=made.root_id)
        if count:
            audit.record(
                Tenant.objects.get(pk=tenant_id), audit.SYSTEM, "keys.root_rotated", None, keys=count
            )
    return count


def _retire(root: RootKey) -> None:
    """Destroy earlier versions once nothing is wrapped by one; nobody wraps anything meanwhile."""
    with transaction.atomic():
        vault_keys.hold_root_keys(alone=True)
        newest = root.id
        for tenant_id in _tenants():
            with scope(tenant_id):
                others = (
                    DataKey.objects.of(tenant_id).exclude(root_id=newest).values_list("root_id", flat=True)
                )
                if any(root_keys.known(root_id) is not None for root_id in others):
                    return
        root.retire()
