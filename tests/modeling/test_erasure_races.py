"""Somebody is erased while rows are read, cut or held: no row comes back under a fresh key, no hold is passed by."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from django.conf import settings

from modeling.actions import datasets, erasures, holds, replaying
from modeling.actions.datasets import resegment, shred_unit
from modeling.actions.erasures import Asked
from modeling.models import Dataset, DatasetVersion, UnitKey, VersionDiff
from modeling.rows import open_rows, read_handles, rebuild_content
from saas.lib import exported
from saas.lib.db import uuid7
from saas.lib.errors import Conflict
from tenants import tombstones
from tenants.audit import SYSTEM
from tenants.scope import scope
from tests.modeling.chained import first_version, newest
from tests.modeling.test_erasures import table
from tests.modeling.test_reading_again import inspect

ROWS = "text,label\n" + "".join(f"Grüße von Nummer {n},{'ab'[n % 2]}\n" for n in range(12))


def test_reading_again_does_not_bring_back_who_was_erased_meanwhile(
    acme: Any, api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = first_version(api, acme, ROWS.encode("cp1252"))
    assert version.file is not None
    assert version.unit_column == "", "each row is one person, so another encoding is another handle"
    file, dataset = version.file.public_id, version.dataset
    assert api.post(f"/v1/files/{file}/read", {"encoding": "cp1250"}).status_code == 200
    parse, erased = rebuild_content, []

    def content(former: DatasetVersion) -> Any:
        yield from parse(former)
        with scope(acme):
            handle = next(read_handles(former))
            erased.append(shred_unit(dataset, handle))

    # The rows are read, then somebody is erased.
    monkeypatch.setattr("modeling.actions.rereading.rebuild_content", content)
    inspect(acme, file)
    assert erased == [True]
    found = api.get(f"/v1/files/{file}").json()
    assert found["status"] == "processed"
    assert "erased" in found["status_details"]
    last = newest(acme, dataset.public_id)
    assert last.number == 1
    assert len(list(open_rows(last))) == 11


@pytest.mark.parametrize("meanwhile", ["hold", "cut", "nothing"])
def test_what_happens_while_rows_are_counted_is_seen(
    acme: Any, api: Any, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    version = first_version(api, acme, table(["P1", "P2", "P3"]))
    counted = erasures._count

    def count(tenant: Any, one: Any, handle: bytes) -> None:
        counted(tenant, one, handle)
        with scope(tenant):
            if meanwhile == "hold":
                holds.place(tenant, SYSTEM, reason="Case 17", dataset=one.dataset)
            if meanwhile == "cut":
                resegment(newest(tenant, one.dataset.public_id), "")

    monkeypatch.setattr(erasures, "_count", count)
    if meanwhile == "nothing":
        assert erasures.erase(acme, SYSTEM, version.dataset, Asked(unit="P2")).reached
    else:
        with pytest.raises(Conflict):
            erasures.erase(acme, SYSTEM, version.dataset, Asked(unit="P2"))
        assert len(list(open_rows(newest(acme, version.dataset.public_id)))) == 9


def test_a_cut_that_a_job_read_is_reached(acme: Any, api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a job kept from being retired holds the person's rows under other handles."""
    version = first_version(api, acme, table(["P1", "P2", "P3"]))
    with scope(acme), monkeypatch.context() as a_job_reads:
        a_job_reads.setattr(datasets, "retire", lambda tenant, old: None)
        cut = resegment(version, "")
    assert len(list(open_rows(version))) == 9
    erasures.erase(acme, SYSTEM, cut.dataset, Asked(line=2))
    with scope(acme):
        left = DatasetVersion.objects.of(acme).filter(dataset=version.dataset).exclude(segments=None)
        assert list(left.values_list("number", flat=True)) == [2]
    assert len(list(open_rows(newest(acme, version.dataset.public_id)))) == 8


def test_a_restored_database_may_be_older_than_the_dataset(acme: Any, api: Any) -> None:
    version = first_version(api, acme, table(["P1", "P2", "P3"]))
    for reference in (f"{uuid7()}:{'00' * 16}", f"{version.dataset_id}:{'11' * 16}"):
        row = tombstones._row(acme.pk, "unit", reference, datetime.now(UTC))
        exported.append(settings.TOMBSTONES_DIR, [tombstones._line(row)], at=datetime.now(UTC))
    assert tombstones.replay() == 2


def test_a_restored_comparison_goes_with_the_person(acme: Any, api: Any) -> None:
    version = first_version(api, acme, table(["P1", "P2", "P3"]))
    with scope(acme):
        VersionDiff.objects.of(acme).create(dataset=version.dataset, first=version, second=version, found={})
        handle = next(read_handles(version))
        replaying.destroy_unit_again(acme.pk, f"{version.dataset_id}:{handle.hex()}")
        assert not VersionDiff.objects.of(acme).exists()
        assert bytes(UnitKey.objects.of(acme).get(handle=handle).wrapped) == b""
        replaying.destroy_dataset_again(acme.pk, str(version.dataset_id))
        assert DatasetVersion.objects.of(acme).get(pk=version.pk).labels == []
        assert Dataset.objects.of(acme).get(pk=version.dataset_id).deleted_at is not None
