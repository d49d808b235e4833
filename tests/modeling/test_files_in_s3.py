"""A file through a bucket in place of the folder: uploaded, inspected, read back, shredded; no disk is used."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import settings as django_settings

from modeling.actions.datasets import read_rows
from modeling.models import DatasetVersion
from saas.lib.object_store import store_at
from tenants import vault
from tenants.models import VaultObject
from tenants.scope import scope
from tests import s3
from tests.modeling.test_files_api import CLINIC, inspect


def test_it_works(acme: Any, api: Any, settings: Any) -> None:
    settings.OBJECT_STORE = s3.bucket()
    store = store_at(settings.OBJECT_STORE)
    file = api.upload("notes.csv", CLINIC).json()
    assert len(list(store.list(str(acme.pk)))) == 1
    inspect(acme, file["id"])
    assert api.get(f"/v1/files/{file['id']}").json()["status"] == "processed"
    content = api.get(f"/v1/files/{file['id']}/content")
    assert b"".join(content.streaming_content) == CLINIC
    with scope(acme):
        version = DatasetVersion.objects.of(acme).select_related("dataset").get(file__public_id=file["id"])
        living = VaultObject.objects.of(acme).filter(destroyed_at=None)
        assert sorted(found.key for found in store.list(str(acme.pk))) == sorted(
            vault.object_key(one) for one in living if one.sealed_bytes
        )
    assert len(list(read_rows(version))) == 200
    folder = django_settings.OBJECTS_DIR / str(acme.pk)
    assert not [path for path in folder.rglob("*") if path.is_file()]
    assert api.delete(f"/v1/files/{file['id']}").status_code == 200
    assert list(store.list(str(acme.pk))) == []


def test_a_refused_upload_leaves_nothing_in_the_bucket(acme: Any, api: Any, settings: Any) -> None:
    from modeling.models import File

    settings.OBJECT_STORE = s3.bucket()
    store = store_at(settings.OBJECT_STORE)
    with scope(acme):
        File.objects.of(acme).create(name="big", purpose="fine-tune", size_bytes=(1 << 29) - 10)
    assert api.upload("a.csv", b"a,b\n1,2\n" * 10).status_code == 413
    assert list(store.list(str(acme.pk))) == []
    assert list(store.drafts(str(acme.pk))) == []


def test_a_bucket_that_does_not_answer_is_an_error_and_costs_no_row(
    acme: Any, api: Any, settings: Any
) -> None:
    from saas.lib.object_store import Place, StoreUnavailable

    settings.OBJECT_STORE = Place("s3://no-such-bucket/x", s3.endpoint(), "us-east-1", path_style=True)
    with pytest.raises(StoreUnavailable):
        vault.put(acme, "upload", b"bytes")
    refused = api.upload("notes.csv", CLINIC)
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "storage_unavailable"
    assert "no-such-bucket" not in refused.content.decode()
    with scope(acme):
        assert VaultObject.objects.of(acme).count() == 0
