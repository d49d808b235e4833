"""A tenant is shredded while a rotation is adding a generation: no key of the tenant's is left."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.db import connection, connections

from tenants import root_keys, vault, vault_keys
from tenants.models import DataKey, Tenant
from tenants.scope import scope


def test_no_generation_outlives_the_tenant(acme: Any) -> None:
    stored = vault.put(acme, "upload", b"secret")
    added, go_on = threading.Event(), threading.Event()

    def rotate() -> None:
        try:
            with scope(acme):
                Tenant.objects.select_for_update().get(pk=acme.pk)
                vault_keys.add_generation(acme, root_keys.installation())
                added.set()
                go_on.wait(10)
        finally:
            connections.close_all()

    def shred() -> None:
        try:
            vault.shred_tenant(acme)
        finally:
            connections.close_all()

    rotating, shredding = threading.Thread(target=rotate), threading.Thread(target=shred)
    rotating.start()
    assert added.wait(10)
    shredding.start()
    shredding.join(0.5)
    assert shredding.is_alive(), "it waits for the rotation"
    go_on.set()
    rotating.join(10)
    shredding.join(10)
    connection.close()
    with scope(acme):
        assert DataKey.objects.of(acme).count() == 0
    vault_keys.forget(acme.pk)
    with pytest.raises(vault.KeyDestroyed):
        vault.get(stored)
