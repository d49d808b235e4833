"""Rotates a tenant's key in a process of its own, to be killed: `rotate_worker.py TENANT ROTATION WINDOW NUMBER`.

WINDOW is `inside` (a batch is written, not committed), `between` (it is committed), `finish` (the old key is deleted,
not committed); for data keys `sealed`, `swapping` and `swapped`; `never`; or `naive`: a rotation without generations
that keeps no old key. Says `here` at the window.
"""

from __future__ import annotations

import os
import sys
import time
import uuid
from typing import Any

import django

django.setup()

from tenants import resealing, rotation, vault, vault_keys  # noqa: E402
from tenants.models import DataKey, KeyRotation, ObjectKey  # noqa: E402
from tenants.scope import scope  # noqa: E402


def stay() -> None:
    """Say so, and wait to be killed."""
    os.write(1, b"here\n")
    time.sleep(120)


def halt(window: str, number: int) -> None:
    """Stand at the window of the number-th batch."""
    step, finish, seen = rotation._step, rotation._finish, 0

    def halting(found: KeyRotation) -> bool:
        nonlocal seen
        seen += 1
        if window == "between" and seen == number + 1:
            stay()
        done = step(found)
        if window == "inside" and seen == number:
            stay()
        return done

    def finishing(found: KeyRotation) -> bool:
        done = finish(found)
        if window == "finish" and done:
            stay()
        return done

    rotation._step, rotation._finish = halting, finishing


def halt_swap(window: str, number: int) -> None:
    """Stand in the number-th object: its new bytes are written, its key is swapped and not committed, or is."""
    swap, note, seen = resealing._swap, resealing.vault_keys.seal_key, 0

    def swapping(*given: Any) -> bool:
        nonlocal seen
        seen += 1
        if window == "sealed" and seen == number:
            stay()
        done = swap(*given)
        if window == "swapped" and seen == number:
            stay()
        return done

    def sealing(*given: Any, **named: Any) -> bytes:
        if window == "swapping" and seen == number:
            stay()
        return note(*given, **named)

    resealing._swap, resealing.vault_keys.seal_key = swapping, sealing
    resealing.OLD_BYTES_SECONDS = 1.0


def naive(tenant_id: uuid.UUID, number: int) -> None:
    """What must not be done: a new key in the old one's place, then row after row wrapped again."""
    with scope(tenant_id):
        keys = list(ObjectKey.objects.of(tenant_id).select_related("object"))
        opened = [(row, vault.open_row(row, place=vault.key_place(row.object))) for row in keys]
        DataKey.objects.of(tenant_id).filter(generation=1).delete()
        vault_keys.add_generation(tenant_id, rotation.root_keys.installation())
        fresh: Any = DataKey.objects.of(tenant_id).get(generation=1)
    for at, (row, secret) in enumerate(opened):
        if at == number:
            stay()
        with scope(tenant_id):
            wrapped = vault_keys.seal_under(fresh, secret, place=vault.key_place(row.object))
            ObjectKey.objects.of(tenant_id).filter(pk=row.pk).update(wrapped=wrapped)


def main(tenant: str, rotation_id: str, window: str, number: str) -> None:
    """One attempt, to its end or its window."""
    if window == "naive":
        naive(uuid.UUID(tenant), int(number))
        return
    halt(window, int(number))
    halt_swap(window, int(number))
    done = rotation.run(uuid.UUID(tenant), uuid.UUID(rotation_id), is_stopping=lambda: False)
    os.write(1, b"done\n" if done else b"stopped\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
