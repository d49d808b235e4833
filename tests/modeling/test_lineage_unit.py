"""One lineage has one unit and its smallest delta, however its files are cut, uploaded again or raced."""

from __future__ import annotations

from typing import Any

import pytest

from modeling.actions import inspection, jobs
from modeling.actions.datasets import overlapping_datasets, resegment
from modeling.actions.resolving import resolve
from modeling.actions.specs import load_spec
from modeling.models import DatasetVersion, File, Job, PrivacyAccount, PrivacyEntry
from saas.lib.errors import Refusal
from tenants.models import Tenant
from tenants.scope import scope
from tests.modeling.clinic import dataset_of, row_of, started, train, uploaded, words_csv


def refused(api: Any, file_id: str, **body: Any) -> tuple[int, str]:
    answer = api.post("/v1/fine_tuning/jobs", {"training_file": file_id, **body})
    return answer.status_code, (answer.json().get("error") or {}).get("code", "")


def account_of(tenant: Tenant) -> PrivacyAccount:
    with scope(tenant):
        return PrivacyAccount.objects.of(tenant).get(merged_into=None)


def test_calling_rows_persons_in_a_second_upload_buys_no_budget(api: Any, acme: Tenant, tiny: Any) -> None:
    content = words_csv(700, people=350)
    started(api, uploaded(api, acme, content), privacy={"epsilon": 2, "unit": "person_id"})
    again = uploaded(api, acme, content)
    assert refused(api, again, privacy={"epsilon": 2, "unit": ""}) == (409, "unit_fixed")
    assert refused(api, again, privacy={"epsilon": 2, "unit": "persn_id"}) == (400, "column_not_found")
    with scope(acme):
        assert PrivacyEntry.objects.of(acme).values("job").distinct().count() == 1
    started(api, again, privacy={"epsilon": 2, "unit": "person_id"})
    renamed = uploaded(api, acme, words_csv(700, people=350, seed=4).replace(b"person_id", b"client_id"))
    started(
        api, renamed, privacy={"epsilon": 2, "unit": "client_id"}
    )  # the same people, told by the same names
    with scope(acme):
        assert PrivacyAccount.objects.of(acme).count() == 1


def test_a_first_job_that_lost_the_race_for_the_unit_is_refused(api: Any, acme: Tenant, tiny: Any) -> None:
    file_id = api.upload("words.csv", words_csv(700, people=350)).json()["id"]
    slow = row_of(acme, started(api, file_id, privacy={"epsilon": 2, "unit": "person_id"})["id"])
    with scope(acme):
        file = File.objects.of(acme).get(public_id=file_id)
    inspection.inspect_file(acme.pk, file.pk)
    with scope(acme):
        file.refresh_from_db()
        resolved = resolve(acme, load_spec(slow.spec), file, None)
    quick = started(api, file_id, privacy={"epsilon": 2, "unit": ""})
    assert dataset_of(acme, quick["id"]).unit_column == ""
    with pytest.raises(Refusal) as caught, scope(acme):
        jobs._admit(acme, Job.objects.of(acme).get(pk=slow.pk), resolved)
    assert caught.value.code == "unit_fixed"
    with scope(acme):
        assert not PrivacyEntry.objects.of(acme).filter(job=slow).exists()


def test_a_new_cut_does_not_hide_people_from_whom_something_was_learnt(
    api: Any, acme: Tenant, tiny: Any
) -> None:
    content = words_csv(700, people=350)
    job = started(
        api,
        uploaded(api, acme, content),
        privacy={"mode": "off", "reason": "a control", "unit": "person_id"},
    )
    train(acme, job["id"])
    with scope(acme):
        version = DatasetVersion.objects.of(acme).get(dataset=dataset_of(acme, job["id"]))
        resegment(version, "")
    other = started(
        api,
        uploaded(api, acme, words_csv(700, people=350, seed=9)),
        privacy={"epsilon": 2, "unit": "person_id"},
    )
    with scope(acme):
        assert overlapping_datasets(dataset_of(acme, other["id"]))
    assert account_of(acme).no_bound
    done = train(acme, other["id"])
    assert done.model_version is not None
    card = done.model_version.card
    assert card["privacy"]["lineage"]["no_bound"]
    assert any("without privacy on these people" in sentence for sentence in card["limits"])


def test_the_card_tells_what_the_lineage_spent_over_all_jobs(api: Any, acme: Tenant, words_file: str) -> None:
    for _number in range(2):
        done = train(acme, started(api, words_file, privacy={"epsilon": 2})["id"])
    assert done.model_version is not None
    privacy = done.model_version.card["privacy"]
    assert privacy["lineage"]["epsilon_used"] > 1.3 * privacy["epsilon"]
    assert privacy["lineage"]["epsilon_lifetime"] == account_of(acme).lifetime_epsilon
    assert "number of rows" in done.model_version.card["data"]["declared_public"]


def test_the_lineage_keeps_the_smallest_delta_of_its_jobs(api: Any, acme: Tenant, words_file: str) -> None:
    started(api, words_file, privacy={"epsilon": 1})
    assert account_of(acme).delta == 1e-5
    body = {"training_file": words_file, "privacy": {"epsilon": 1, "delta": 1e-7}}
    quoted = api.post("/v1/fine_tuning/quote", body).json()["privacy"]["budget_after"]
    started(api, words_file, privacy={"epsilon": 1, "delta": 1e-7})
    assert account_of(acme).delta == 1e-7
    used = api.get("/v1/privacy/ledger").json()["accounts"][0]["used"]
    assert used == pytest.approx(quoted)


def test_a_larger_delta_than_the_house_rule_is_refused(api: Any, acme: Tenant, words_file: str) -> None:
    assert refused(api, words_file, privacy={"delta": 2e-5}) == (400, "invalid_delta")


def test_a_catalogue_cannot_be_made_of_peoples_records(api: Any, acme: Tenant, tiny: Any) -> None:
    lines = [f"u{number % 200},i{number % 30}" for number in range(2000)]
    file_id = uploaded(api, acme, "\n".join(["user_id,item_id", *lines]).encode())
    body = {"task": "recommendation", "columns": {"user": "user_id", "item": "item_id"}}
    assert refused(api, file_id, catalogue_file=file_id, **body) == (400, "invalid_file")
