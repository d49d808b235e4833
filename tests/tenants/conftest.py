"""Both kinds of object store, for the tests that must hold on each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from saas.lib.object_store import ObjectStore, Place, store_at


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """An empty folder or an empty bucket, which is the vault's store for this test."""
    from tests import s3

    made = Place(f"file:{tmp_path / 'objects'}") if request.param == "disk" else s3.bucket()
    monkeypatch.setattr(settings, "OBJECT_STORE", made)
    return made


@pytest.fixture
def store(place: Place) -> ObjectStore:
    """The store itself."""
    return store_at(place)


@pytest.fixture
def keys_in(store: ObjectStore) -> Any:
    """Lists what lies in the store: `keys_in("tenant")`."""
    return lambda prefix: [found.key for found in store.list(str(prefix))]
