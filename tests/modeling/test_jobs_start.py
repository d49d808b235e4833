"""Starting a job: what is guessed, what is refused, and what a refusal leaves behind (nothing)."""

from __future__ import annotations

from typing import Any

import pytest
from allauth.account.models import EmailAddress

from billing.models import Subscription
from modeling.actions import jobs
from modeling.actions.specs import JobSpec
from modeling.models import File, Job, JobEvent, LedgerHead
from saas.lib.errors import Refusal
from tenants.audit import SYSTEM
from tenants.models import Tenant
from tenants.scope import scope
from tests.modeling.clinic import dataset_of, prepare, row_of, started, train, uploaded, words_csv


def pay_for(tenant: Tenant, plan: str) -> None:
    with scope(tenant):
        Subscription.objects.of(tenant).update_or_create(
            tenant=tenant, defaults={"plan": plan, "status": "active"}
        )  # fmt: skip


def refused(api: Any, file_id: str, **body: Any) -> tuple[int, str, str | None]:
    answer = api.post("/v1/fine_tuning/jobs", {"training_file": file_id, **body})
    error = answer.json()["error"]
    assert error["message"]
    return answer.status_code, error["code"], error["param"]


def test_it_works_with_everything_guessed(api: Any, acme: Tenant, words_file: str) -> None:
    body = started(api, words_file)
    assert body["object"] == "fine_tuning.job"
    assert (body["status"], body["task"], body["model"]) == ("queued", "classification", "minilm-l6")
    assert body["privacy"]["epsilon"] == 8
    assert 0 < body["privacy"]["delta"] <= 1e-5
    job = row_of(acme, body["id"])
    assert job.recipe["labels"] == ["class 0", "class 1", "class 2"]
    assert job.recipe["columns"] == {
        "text": "text",
        "label": "label",
        **({"unit": ""} if "unit" in job.recipe["columns"] else {}),
    }
    assert dataset_of(acme, body["id"]).unit_fixed


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"suffix": "Not Allowed"}, (400, "invalid_suffix", "suffix")),
        ({"suffix": "x" * 19}, (400, "invalid_suffix", "suffix")),
        ({"task": "poetry"}, (400, "invalid_task", "task")),
        ({"model": "gpt-4o-mini"}, (404, "model_not_found", "model")),
        ({"model": "smollm2-135m", "task": "classification"}, (400, "model_task_mismatch", "model")),
        ({"columns": {"text": "nowhere"}}, (400, "column_not_found", "columns.text")),
        ({"task": "chat"}, (400, "column_required", "columns.messages")),
        ({"privacy": {"epsilon": 9}}, (402, "epsilon_ceiling", "privacy.epsilon")),
        ({"privacy": {"epsilon": 0.001}}, (400, "too_few_units", None)),
        ({"privacy": {"delta": 0.1}}, (400, "invalid_delta", "privacy.delta")),
        ({"privacy": {"mode": "off"}}, (400, "reason_required", "privacy.reason")),
        ({"privacy": {"unit": "nowhere"}}, (400, "column_not_found", "privacy.unit")),
        ({"method": "magic"}, (400, "unknown_method", "method")),
        ({"labels": ["one"]}, (400, "invalid_labels", "labels")),
    ],
)  # fmt: skip
def test_a_refusal_leaves_nothing_behind(
    api: Any, acme: Tenant, words_file: str, body: dict[str, Any], expected: tuple[int, str, str | None]
) -> None:
    assert refused(api, words_file, **body) == expected
    with scope(acme):
        assert not Job.objects.of(acme).exists()
        assert not LedgerHead.objects.of(acme).exists()


def test_too_few_people_are_refused_before_any_gradient(api: Any, acme: Tenant, tiny: Any) -> None:
    file_id = uploaded(api, acme, words_csv(24))
    assert refused(api, file_id)[1] == "too_few_units"


def test_unknown_and_foreign_files_are_the_same_404(
    api: Any, acme: Tenant, globex: Tenant, globex_api: Any
) -> None:
    foreign = uploaded(globex_api, globex, words_csv(100))
    unknown = api.post("/v1/fine_tuning/jobs", {"training_file": "file-" + "0" * 24})
    stranger = api.post("/v1/fine_tuning/jobs", {"training_file": foreign})
    assert unknown.status_code == stranger.status_code == 404
    assert unknown.content == stranger.content


def test_the_unit_is_fixed_by_the_first_private_job(api: Any, acme: Tenant, tiny: Any) -> None:
    file_id = uploaded(api, acme, words_csv(700, people=350))
    job = started(api, file_id, privacy={"epsilon": 2, "unit": "person_id"})
    assert job["privacy"]["unit"] == "person_id"
    shape = row_of(acme, job["id"]).plan["shape"]
    assert shape["train_units"] + shape["held_out_units"] == 350
    assert refused(api, file_id, privacy={"unit": ""}) == (409, "unit_fixed", "privacy.unit")


def test_rows_can_be_cut_by_another_unit_before_that(api: Any, acme: Tenant, tiny: Any) -> None:
    file_id = uploaded(api, acme, words_csv(700, people=350))
    job = started(api, file_id, privacy={"epsilon": 2, "unit": ""})
    shape = row_of(acme, job["id"]).plan["shape"]
    assert shape["train_units"] + shape["held_out_units"] == 700


def test_a_file_still_being_inspected_gives_a_job_that_waits(api: Any, acme: Tenant, tiny: Any) -> None:
    answer = api.upload("words.csv", words_csv(700))
    job = started(api, answer.json()["id"])
    assert job["status"] == "validating_files"
    assert prepare(acme, job["id"]).state == Job.State.VALIDATING
    from modeling.actions import inspection

    with scope(acme):
        inspection_of = File.objects.of(acme).get(public_id=answer.json()["id"]).pk
    inspection.inspect_file(acme.pk, inspection_of)
    assert prepare(acme, job["id"]).state == Job.State.QUEUED
    assert train(acme, job["id"]).state == Job.State.SUCCEEDED


def test_a_waiting_job_fails_with_the_files_own_error(api: Any, acme: Tenant) -> None:
    answer = api.upload("words.csv", b"\xff\xfe\x00")
    job = started(api, answer.json()["id"])
    from modeling.actions import inspection

    with scope(acme):
        pk = File.objects.of(acme).get(public_id=answer.json()["id"]).pk
    inspection.inspect_file(acme.pk, pk)
    failed = prepare(acme, job["id"])
    assert failed.state == Job.State.FAILED
    assert failed.error["code"] == "invalid_file"
    body = api.get(f"/v1/fine_tuning/jobs/{job['id']}").json()
    assert body["error"]["param"] == "training_file"


def test_the_plan_limits_waiting_jobs(api: Any, acme: Tenant, words_file: str) -> None:
    for _number in range(3):
        started(api, words_file, privacy={"epsilon": 1})
    assert refused(api, words_file, privacy={"epsilon": 1})[:2] == (402, "plan_limit")
    pay_for(acme, "team")
    started(api, words_file, privacy={"epsilon": 1})


def test_training_on_free_needs_a_confirmed_address(acme: Tenant, people: Any, words_file: str) -> None:
    user = people.user("alice")
    EmailAddress.objects.filter(user=user).update(verified=False)
    with pytest.raises(Refusal) as caught, scope(acme):
        jobs.start(acme, SYSTEM, JobSpec(training_file=words_file), user=user)
    assert caught.value.code == "email_unverified"


def test_a_key_does_not_lead_around_that(acme: Tenant, people: Any, api: Any, words_file: str) -> None:
    EmailAddress.objects.filter(user=people.user("alice")).update(verified=False)
    assert refused(api, words_file)[:2] == (
        402,
        "email_unverified",
    )  # bob's address is confirmed, but he owns nothing
    EmailAddress.objects.filter(user=people.user("alice")).update(verified=True)
    started(api, words_file)


def test_an_owner_alone_can_allow_a_large_epsilon(acme: Tenant, people: Any, words_file: str) -> None:
    from modeling.actions.specs import PrivacySpec

    spec = JobSpec(training_file=words_file, privacy=PrivacySpec(epsilon=12.0, allow_large_epsilon=True))
    with pytest.raises(Refusal) as caught, scope(acme):
        jobs.start(acme, SYSTEM, spec, user=people.user("bob"))
    assert caught.value.code == "owner_required"
    with scope(acme):
        assert jobs.start(acme, SYSTEM, spec, user=people.user("alice")).state == Job.State.QUEUED


def test_a_quote_tells_everything_and_spends_nothing(api: Any, acme: Tenant, tiny: Any) -> None:
    file_id = uploaded(api, acme, words_csv(700, people=350))
    quote = api.post(
        "/v1/fine_tuning/quote", {"training_file": file_id, "privacy": {"unit": "person_id"}}
    ).json()
    assert quote["privacy"]["epsilon"] <= 8
    assert quote["privacy"]["fits"]
    assert 1 <= quote["privacy"]["runs_like_this"] < 20
    assert quote["seconds"] > 0
    assert quote["units"]["training"] + quote["units"]["held_out"] == 350
    assert not dataset_or_none(acme)
    job = started(api, file_id, privacy={"unit": "person_id"})
    plan = row_of(acme, job["id"]).plan
    assert plan["epsilon"] == quote["privacy"]["epsilon"]
    again = api.post("/v1/fine_tuning/quote", {"training_file": file_id}).json()
    assert again["privacy"]["budget_used"] == pytest.approx(quote["privacy"]["budget_after"])


def dataset_or_none(tenant: Tenant) -> bool:
    with scope(tenant):
        return Job.objects.of(tenant).exists() or LedgerHead.objects.of(tenant).exists()


def test_the_same_idempotency_key_starts_one_job(api: Any, acme: Tenant, words_file: str) -> None:
    body = {"training_file": words_file}
    first = api.post("/v1/fine_tuning/jobs", body, **{"Idempotency-Key": "once"})
    again = api.post("/v1/fine_tuning/jobs", body, **{"Idempotency-Key": "once"})
    other = api.post("/v1/fine_tuning/jobs", body | {"suffix": "b"}, **{"Idempotency-Key": "once"})
    assert first.json() == again.json()
    assert other.status_code == 422
    with scope(acme):
        assert Job.objects.of(acme).count() == 1


def test_the_same_key_at_once_starts_one_job(api: Any, acme: Tenant, words_file: str) -> None:
    from tests.modeling.test_ledger import race

    body = {"training_file": words_file}
    answers = race(
        lambda: api.post("/v1/fine_tuning/jobs", body, **{"Idempotency-Key": "race"}).status_code, 8
    )
    assert set(answers) <= {200, 409}
    assert 200 in answers
    with scope(acme):
        assert Job.objects.of(acme).count() == 1


def test_lists_page_by_cursor(api: Any, acme: Tenant, words_file: str) -> None:
    ids = [started(api, words_file, privacy={"epsilon": 1})["id"] for _number in range(3)]
    first = api.get("/v1/fine_tuning/jobs", limit=2).json()
    assert [job["id"] for job in first["data"]] == ids[:0:-1]
    assert first["has_more"]
    rest = api.get("/v1/fine_tuning/jobs", limit=2, after=first["last_id"]).json()
    assert [job["id"] for job in rest["data"]] == ids[:1]
    assert not rest["has_more"]
    events = api.get(f"/v1/fine_tuning/jobs/{ids[0]}/events", limit=1).json()
    assert events["data"][0]["object"] == "fine_tuning.job.event"
    older = api.get(f"/v1/fine_tuning/jobs/{ids[0]}/events", after=events["last_id"]).json()
    assert [event["seq"] for event in older["data"]] == [1]
    with scope(acme):
        assert JobEvent.objects.of(acme).filter(seq=1).count() == 3
