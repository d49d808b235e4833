"""Retention and legal holds: what is past its time goes, what is held or in use stays, and only owners decide."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from modeling.actions import holds, retention
from modeling.actions.files import delete_file
from modeling.models import Dataset, DatasetVersion, File, LegalHold, RetentionRule
from saas.lib.errors import Conflict, Refusal
from tenants.audit import SYSTEM
from tenants.models import AuditEntry
from tenants.scope import scope
from tests.modeling.test_files_units import add, table

Kind = RetentionRule.Kind


def aged(tenant: Any, version: DatasetVersion, days: int) -> None:
    """Make a version as if it had come so many days ago."""
    with scope(tenant):
        then = timezone.now() - timedelta(days=days)
        DatasetVersion.objects.of(tenant).filter(pk=version.pk).update(created_at=then)
        File.objects.of(tenant).filter(pk=version.file_id).update(created_at=then)


def is_there(tenant: Any, version: DatasetVersion) -> bool:
    with scope(tenant):
        return Dataset.objects.of(tenant).filter(pk=version.dataset_id, deleted_at=None).exists()


def test_it_works(acme: Any, api: Any) -> None:
    old, young = add(acme, api, table(range(20))), add(acme, api, table(range(50, 60)), name="young.csv")
    aged(acme, old, 31)
    with scope(acme):
        retention.set_rule(acme, SYSTEM, Kind.TRAINING, 30, agreed=True)
    assert retention.apply_rules(acme.pk) == 1
    assert not is_there(acme, old)
    assert is_there(acme, young)
    assert retention.apply_rules(acme.pk) == 0
    with scope(acme):
        actions = set(AuditEntry.objects.of(acme).values_list("action", flat=True))
    assert {"retention.changed", "file.deleted"} <= actions


def test_a_rule_about_catalogues_leaves_records_alone(acme: Any, api: Any) -> None:
    records = add(acme, api, table(range(20)))
    things = add(acme, api, b"id,text\n1,tea\n2,cup\n", name="items.csv", purpose="user_data")
    for version in (records, things):
        aged(acme, version, 100)
    with scope(acme):
        retention.set_rule(acme, SYSTEM, Kind.CATALOGUE, 30, agreed=True)
    assert retention.apply_rules(acme.pk) == 1
    assert is_there(acme, records)
    assert not is_there(acme, things)


def test_requests_of_batches_have_a_rule(acme: Any, api: Any) -> None:
    file_id = api.upload("lines.jsonl", b"{}\n", "batch").json()["id"]
    with scope(acme):
        File.objects.of(acme).filter(public_id=file_id).update(created_at=timezone.now() - timedelta(days=8))
        retention.set_rule(acme, SYSTEM, Kind.BATCH, 7, agreed=True)
    assert retention.apply_rules(acme.pk) == 1
    assert api.get(f"/v1/files/{file_id}").status_code == 404


def test_a_rule_that_would_delete_at_once_asks_first(acme: Any, api: Any) -> None:
    aged(acme, add(acme, api, table(range(20))), 31)
    with scope(acme), pytest.raises(Refusal, match="1 of them"):
        retention.set_rule(acme, SYSTEM, Kind.TRAINING, 30)
    assert retention.apply_rules(acme.pk) == 0


def test_other_tenants_keep_theirs(acme: Any, globex: Any, api: Any, globex_api: Any) -> None:
    theirs = add(globex, globex_api, table(range(20)))
    aged(globex, theirs, 1_000)
    with scope(acme):
        retention.set_rule(acme, SYSTEM, Kind.TRAINING, 1, agreed=True)
    assert retention.apply_rules(acme.pk) == retention.apply_rules(globex.pk) == 0
    assert is_there(globex, theirs)


@pytest.mark.parametrize("of", ["everything", "the file", "the dataset"])
def test_a_hold_stops_deletion_and_expiry_until_it_is_released(acme: Any, api: Any, of: str) -> None:
    version = add(acme, api, table(range(20)))
    aged(acme, version, 31)
    with scope(acme):
        file = File.objects.of(acme).select_related("object").get(pk=version.file_id)
        retention.set_rule(acme, SYSTEM, Kind.TRAINING, 30, agreed=True)
        what: dict[str, Any] = {"the file": {"file": file}, "the dataset": {"dataset": version.dataset}}
        hold = holds.place(acme, SYSTEM, reason="Case 17", **what.get(of, {}))
    assert retention.apply_rules(acme.pk) == 0
    with scope(acme), pytest.raises(Conflict, match="Case 17"):
        delete_file(file, SYSTEM)
    answer = api.delete(f"/v1/files/{file.public_id}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "legal_hold")
    with scope(acme):
        holds.release(acme, SYSTEM, hold, reason="Case closed")
        with pytest.raises(Conflict):
            holds.release(acme, SYSTEM, hold, reason="again")
    assert retention.apply_rules(acme.pk) == 1
    assert not is_there(acme, version)


def test_a_hold_on_one_dataset_leaves_others_free(acme: Any, api: Any) -> None:
    held, free = add(acme, api, table(range(20))), add(acme, api, table(range(50, 60)), name="free.csv")
    with scope(acme):
        holds.place(acme, SYSTEM, reason="Case 17", dataset=held.dataset)
        file = File.objects.of(acme).select_related("object").get(pk=free.file_id)
        delete_file(file, SYSTEM)
    assert not is_there(acme, free)


def test_owners_decide_on_the_page(acme: Any, alice: Any, bob: Any, vera: Any, carol: Any) -> None:
    tenant, owner, place = acme, alice, f"/t/{acme.slug}/retention/"
    assert owner.get(place).status_code == 200
    assert owner.post(f"{place}rules/", {"kind": "training", "days": "90"}).status_code == 302
    assert owner.post(f"{place}holds/", {"covers": "", "reason": "Inquiry"}).status_code == 302
    page = owner.get(place).content.decode()
    assert 'value="90"' in page
    assert "Inquiry" in page
    wrong = owner.post(f"{place}rules/", {"kind": "training", "days": "often"})
    assert wrong.status_code == 400
    assert "whole number of days" in wrong.content.decode()
    assert owner.post(f"{place}holds/", {"covers": "", "reason": ""}).status_code == 400
    for other in (bob, vera, carol):
        assert other.post(f"{place}rules/", {"kind": "training", "days": ""}).status_code in (403, 404)
    with scope(tenant):
        assert retention.rules(tenant) == {"training": 90}
        hold = LegalHold.objects.of(tenant).get()
    release = f"{place}holds/{hold.public_id}/release/"
    assert bob.post(release, {"reason": "x"}).status_code in (403, 404)
    assert owner.post(release, {"reason": "Over"}).status_code == 302
    with scope(tenant):
        assert not holds.standing(tenant).exists()
