"""A legal hold has no way around it: refused streams, reading again, changes that take a file in, another cut."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from modeling.actions import holds, predictions
from modeling.actions.datasets import resegment
from modeling.models import DatasetVersion, File, Inspection, Prediction, PredictionKey
from modeling.rows import rebuild_content
from modeling.tasks.datasets import sweep_kept_streams
from saas.lib.errors import Conflict
from tenants.audit import SYSTEM
from tenants.models import VaultObject
from tenants.scope import scope
from tests.modeling.chained import first_version, made, newest
from tests.modeling.clinic import uploaded
from tests.modeling.test_erasures import table


def hold(tenant: Any, **what: Any) -> None:
    with scope(tenant):
        holds.place(tenant, SYSTEM, reason="Case 17", **what)


@pytest.mark.parametrize("is_held", [True, False])
def test_the_stream_of_a_refused_file_stays(acme: Any, api: Any, is_held: bool) -> None:
    file = uploaded(api, acme, b"a,a\n1,2\n")
    if is_held:
        with scope(acme):
            row = File.objects.of(acme).get(public_id=file)
        hold(acme, file=row)
        answer = api.post(f"/v1/files/{file}/read", {"format": "csv"})
        assert answer.json()["error"]["code"] == "legal_hold"
    with scope(acme):
        Inspection.objects.of(acme).update(kept_until=timezone.now() - timedelta(seconds=1))
    sweep_kept_streams()
    with scope(acme):
        streams = VaultObject.objects.of(acme).filter(kind="upload", destroyed_at=None)
        assert streams.count() == int(is_held)


@pytest.mark.parametrize("mode", ["remove", "append"])
def test_a_held_file_is_not_used_up_by_a_change_of_another_dataset(acme: Any, api: Any, mode: str) -> None:
    version = first_version(api, acme, table(["P1", "P2", "P3"]))
    held = first_version(api, acme, table(["P2", "P9"], seed=1))
    before = b"".join(rebuild_content(held))
    hold(acme, dataset=held.dataset)
    assert held.file is not None
    made(api, acme, version.dataset.public_id, mode, file=held.file.public_id)
    assert newest(acme, version.dataset.public_id).number == 2
    assert b"".join(rebuild_content(newest(acme, held.dataset.public_id))) == before


def test_another_cut_does_not_retire_held_versions(acme: Any, api: Any) -> None:
    version = first_version(api, acme, table(["P1", "P2", "P3"]))
    made(api, acme, version.dataset.public_id, "remove", units=["P2"])
    hold(acme, dataset=version.dataset)
    with scope(acme), pytest.raises(Conflict, match="Case 17"):
        resegment(newest(acme, version.dataset.public_id), "")
    with scope(acme):
        kept = DatasetVersion.objects.of(acme).filter(dataset=version.dataset).exclude(segments=None)
        assert kept.count() == 2


def test_all_that_is_held_is_more_than_files(acme: Any, api: Any) -> None:
    with scope(acme):
        long_ago = timezone.now() - timedelta(days=400)
        key = PredictionKey.objects.of(acme).create(day=long_ago.date(), wrapped=b"")
        Prediction.objects.of(acme).create(key=key, at=long_ago, milliseconds=1, sealed=b"")
    hold(acme)
    assert predictions.forget_expired(acme.pk) == 0
    with scope(acme), pytest.raises(Conflict, match="Case 17"):
        predictions.delete_kept(acme, None, agreed=True)
    with scope(acme):
        holds.release(acme, SYSTEM, holds.standing(acme).get(), reason="over")
    assert predictions.forget_expired(acme.pk) == 1
