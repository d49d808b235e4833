"""Quality reports end to end: made after inspection, sealed, shown to members only, made anew, forgotten."""

from __future__ import annotations

import json
from typing import Any

import pytest

from modeling.actions import quality, quality_measuring
from modeling.models import DatasetVersion, QualityReport
from modeling.tasks.quality import measure_quality
from tenants import vault
from tenants.models import Tenant, VaultObject
from tenants.scope import scope
from tests.modeling.clinic import row_of, started, train, uploaded, words_csv

TELLING = 2_718  # a number of rows that nothing else on a page has


def newest(tenant: Tenant, file_id: str) -> DatasetVersion:
    with scope(tenant):
        rows = DatasetVersion.objects.of(tenant).filter(file__public_id=file_id).select_related("dataset")
        return rows.latest("number")


def measured(tenant: Tenant, version: DatasetVersion) -> dict[str, Any]:
    """Run the task in this process; the numbers."""
    with scope(tenant):
        report = quality.report_of(version)
        assert report is not None
    measure_quality(tenant_id=str(tenant.pk), report_id=str(report.pk))
    with scope(tenant):
        report = quality.report_of(version)
        assert report is not None
        assert report.state == "ready"
        return quality.numbers_of(report) or {}


def test_it_works(api: Any, acme: Tenant, bob: Any) -> None:
    file_id = uploaded(api, acme, words_csv(900, people=450) + b"\n" + b"person 7,word1 word2,class 1\n" * 50)
    version = newest(acme, file_id)
    where = f"/v1/datasets/{version.dataset.public_id}/quality"
    waiting = api.get(where).json()
    assert (waiting["status"], waiting["report"], waiting["advice"]) == ("waiting", None, [])
    numbers = measured(acme, version)
    assert (numbers["rows"], numbers["units"], numbers["copies"]["rows"]) == (950, 450, 49)
    body = api.get(where).json()
    assert (body["status"], body["report"]["rows"], body["version"]) == ("ready", 950, 1)
    assert any(one["code"] == "copies" and "49 rows" in one["message"] for one in body["advice"])
    assert "without noise" in body["notice"]
    page = bob.get(f"/t/{acme.slug}/data/{version.dataset.public_id}/quality/").content.decode()
    assert "Private: made from your records without noise." in page
    assert page.count('class="histogram__bar"') > 5
    assert "49 rows" in page
    detail = bob.get(f"/t/{acme.slug}/data/{version.dataset.public_id}/").content.decode()
    assert "49 rows" in detail


def test_viewers_see_no_number_of_it(people: Any, acme: Tenant, bob: Any, vera: Any) -> None:
    api = people.api("acme")
    version = newest(acme, uploaded(api, acme, words_csv(300) + b"\n" + b"word1 word2,class 1\n" * 41))
    measured(acme, version)
    url = f"/t/{acme.slug}/data/{version.dataset.public_id}/"
    assert vera.get(url + "quality/").status_code == 403
    assert vera.post(url + "quality/").status_code == 403
    seen, unseen = bob.get(url).content.decode(), vera.get(url).content.decode()
    assert "40 rows" in seen  # the control
    assert "40 rows" not in unseen
    assert 'id="quality"' not in unseen
    assert (
        people.api("acme", "predict").get(f"/v1/datasets/{version.dataset.public_id}/quality").status_code
        == 403
    )


def test_it_is_sealed_and_in_no_card_receipt_or_audit_entry(
    api: Any, acme: Tenant, alice: Any, tiny: Any
) -> None:
    copies = b"word1 word2 word3,class 1\n" * (TELLING % 100 + 19)
    file_id = uploaded(api, acme, words_csv(500) + b"\n" + copies)
    version = newest(acme, file_id)
    numbers = measured(acme, version)
    with scope(acme):
        report = quality.report_of(version)
        assert report is not None
        assert report.object is not None
        row = json.dumps({name: str(value) for name, value in vars(report).items()})
        sealed = vault.get(report.object)
    assert json.loads(sealed) == numbers
    assert "near" not in row
    told = json.dumps(numbers["copies"]["pairs"])
    job = train(acme, started(api, file_id, privacy={"mode": "off", "reason": "a test"})["id"])
    assert job.model_version is not None
    name = job.model_version.name
    for path in (f"/v1/models/{name}/card", f"/v1/models/{name}/receipt", "/v1/privacy/ledger"):
        assert not {"near", "copies", "leak", "rows_per_unit"} & keys_of(api.get(path).json())
    log = alice.get(f"/t/{acme.slug}/audit/").content.decode()
    assert "dataset.quality" not in log
    assert told not in log
    assert {"near", "copies"} <= keys_of(numbers)  # the control
    assert row_of(acme, job.public_id).plan


def keys_of(value: Any) -> set[str]:
    """All names in a nest of dictionaries."""
    if isinstance(value, dict):
        return set(value).union(*map(keys_of, value.values()))
    return set().union(*map(keys_of, value)) if isinstance(value, list) else set()


def test_two_datasets_are_compared_by_person(people: Any, api: Any, acme: Tenant, bob: Any) -> None:
    training = newest(acme, uploaded(api, acme, words_csv(600, people=300, seed=1)))
    shared = words_csv(600, people=300, seed=1).splitlines()[1:41]
    other = words_csv(200, people=100, seed=2).replace(b"person ", b"other ")
    validation = newest(acme, uploaded(api, acme, b"\n".join([other, *shared])))
    where = f"/v1/datasets/{validation.dataset.public_id}/quality"
    assert api.post(where, {"compare_with": training.dataset.public_id}).json()["status"] == "waiting"
    found = measured(acme, validation)["overlap"]
    assert (found["people"], found["shared_people"], found["shared_rows"]) == (300, 40, 40)
    codes = {one["code"] for one in api.get(where).json()["advice"]}
    assert {"shared_people", "shared_rows"} <= codes
    url = f"/t/{acme.slug}/data/{validation.dataset.public_id}/quality/"
    assert "40 of 300 patients" in bob.get(url).content.decode()
    assert bob.post(url, {"compared": training.dataset.public_id}).status_code == 302
    assert api.post(where, {"compare_with": validation.dataset.public_id}).status_code == 400
    globex = newest(people.globex, uploaded(people.api("globex"), people.globex, words_csv(60)))
    for strange in ("ds-nowhere", globex.dataset.public_id):
        assert api.post(where, {"compare_with": strange}).status_code == 404
        assert bob.post(url, {"compared": strange}).status_code == 404


def test_a_new_version_is_measured_and_the_former_report_goes(api: Any, acme: Tenant) -> None:
    version = newest(acme, uploaded(api, acme, words_csv(400, people=200)))
    measured(acme, version)
    with scope(acme):
        report = quality.report_of(version)
        assert report is not None
        sealed = report.object
    answer = api.post(
        f"/v1/datasets/{version.dataset.public_id}",
        {"columns": {"text": "text", "label": "label", "unit": ""}},
    )
    assert answer.status_code == 200
    with scope(acme):
        cut = DatasetVersion.objects.of(acme).filter(dataset=version.dataset).latest("number")
        assert quality.report_of(version) is None
        assert sealed is not None
        with pytest.raises(vault.KeyDestroyed):
            vault.get(sealed)
    assert measured(acme, cut)["units"] == 400


def test_an_erasure_forgets_all_reports_even_one_under_way(api: Any, acme: Tenant) -> None:
    version = newest(acme, uploaded(api, acme, words_csv(400)))
    measured(acme, version)
    with scope(acme):
        old = quality.report_of(version)
        assert old is not None
        assert old.object is not None
        under_way = quality_measuring.claim(acme, quality.ask(version).pk)
    assert under_way is not None
    with scope(acme):
        quality.renew(version.dataset)
        with pytest.raises(vault.KeyDestroyed):
            vault.get(old.object)
    quality_measuring.keep(acme, under_way, {"rows": 1})
    with scope(acme):
        report = quality.report_of(version)
        assert report is not None
        assert (report.state, report.object) == ("waiting", None)
        assert not VaultObject.objects.of(acme).filter(kind="quality", destroyed_at=None).exists()
    assert measured(acme, version)["rows"] == 400


def test_erasing_a_person_has_it_made_anew(api: Any, acme: Tenant) -> None:
    version = newest(acme, uploaded(api, acme, words_csv(400, people=200)))
    dataset = version.dataset.public_id
    assert measured(acme, version)["units"] == 200
    erased = api.post(f"/v1/datasets/{dataset}/erasures", {"unit": "person 7"})
    assert erased.status_code == 200, erased.content
    assert api.get(f"/v1/datasets/{dataset}/quality").json()["report"] is None
    assert measured(acme, version)["units"] == 199


def test_deleting_the_file_destroys_the_report(api: Any, acme: Tenant) -> None:
    file_id = uploaded(api, acme, words_csv(300))
    version = newest(acme, file_id)
    measured(acme, version)
    assert api.delete(f"/v1/files/{file_id}").status_code == 200
    with scope(acme):
        assert not QualityReport.objects.of(acme).filter(version=version).exists()
        assert not VaultObject.objects.of(acme).filter(kind="quality", destroyed_at=None).exists()


def test_a_report_that_fails_thrice_says_so_and_can_be_asked_for_again(
    api: Any, acme: Tenant, bob: Any
) -> None:
    version = newest(acme, uploaded(api, acme, words_csv(300)))
    with scope(acme):
        report = quality.report_of(version)
        assert report is not None
        QualityReport.objects.of(acme).filter(pk=report.pk).update(attempts=3, state="running")
    measure_quality(tenant_id=str(acme.pk), report_id=str(report.pk))
    url = f"/t/{acme.slug}/data/{version.dataset.public_id}/quality/"
    assert "could not be made" in bob.get(url).content.decode()
    assert bob.post(url).status_code == 302
    assert measured(acme, version)["rows"] == 300


def test_a_catalogue_has_no_people(api: Any, acme: Tenant, bob: Any) -> None:
    rows = "\n".join(f"i{n},a thing number {n} of its own kind" for n in range(60))
    version = newest(acme, uploaded(api, acme, f"item_id,title\n{rows}".encode(), purpose="user_data"))
    numbers = measured(acme, version)
    assert (numbers["rows"], numbers["near"]["held_out"]["rows"]) == (60, 0)
    assert not {"few_people", "too_few_people"} & {one["code"] for one in numbers["advice"]}
    assert bob.get(f"/t/{acme.slug}/data/{version.dataset.public_id}/quality/").status_code == 200
