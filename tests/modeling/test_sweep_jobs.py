"""A sweep as a job: charged once, as a whole, before its first run; the card has the procedure's epsilon."""

from __future__ import annotations

from typing import Any

import pytest

from modeling.actions import privacy, running, training
from modeling.core import accounting
from modeling.models import Job, JobEvent, PrivacyEntry
from modeling.plans import load_plan
from tenants.scope import scope
from tests.modeling.clinic import row_of, started, train, uploaded, words_csv


@pytest.fixture
def many_words(api: Any, acme: Any, tiny: Any) -> str:
    """A file with enough people for a sweep."""
    return uploaded(api, acme, words_csv(1500))


def test_a_sweep_of_ten_ends_with_one_model_and_one_charge(api: Any, acme: Any, many_words: str) -> None:
    job = started(api, many_words, privacy={"epsilon": 8}, sweep={"runs": 10}, suffix="swept")
    done = train(acme, job["id"])
    assert done.state == Job.State.SUCCEEDED, done.error
    plan = load_plan(done.plan)
    with scope(acme):
        entries = list(PrivacyEntry.objects.of(acme).filter(job=done).order_by("seq"))
        looks = JobEvent.objects.of(acme).filter(job=done, kind="held_out").count()
    charged = [entry for entry in entries if entry.kind == "charged"]
    assert [entry.mechanism["name"] for entry in charged] == ["train", "sweep_score", "held_out"]
    assert charged[0].mechanism["count"] == plan.steps
    assert looks == 1
    card = api.get(f"/v1/models/{row_of(acme, job['id']).model_version.name}/card").json()
    assert card["privacy"]["epsilon"] == pytest.approx(accounting.epsilon(plan.mechanisms, plan.delta))
    assert 7.9 < card["privacy"]["epsilon"] <= 8
    assert card["report"]["sweep"]["expected_runs"] == 10
    account = api.get("/v1/privacy/ledger").json()["accounts"][0]
    assert account["history"] == pytest.approx(card["privacy"]["epsilon"], abs=1e-6)
    assert account["used"] >= account["history"] - 1e-6


def test_a_sweep_is_never_charged_in_parts(api: Any, acme: Any, many_words: str) -> None:
    done = row_of(acme, started(api, many_words, privacy={"epsilon": 8}, sweep={"runs": 10})["id"])
    with scope(acme), pytest.raises(privacy.OverCharge, match="as a whole"):
        privacy.charge(acme, done, "train", first=0, count=1)


def test_a_sweep_cut_inside_a_run_fails_and_costs_no_more(api: Any, acme: Any, many_words: str) -> None:
    """As after a kill -9: the charge stands, no checkpoint is left. The next attempt may run nothing again."""
    job = row_of(acme, started(api, many_words, privacy={"epsilon": 8}, sweep={"runs": 10})["id"])
    plan = load_plan(job.plan)
    with scope(acme):
        spent = privacy.charge(acme, job, "train", first=0, count=plan.steps)
        Job.objects.of(acme).filter(pk=job.pk).update(spent=spent, attempts=1)
    done = train(acme, job.public_id)
    assert done.state == Job.State.FAILED
    assert done.error is not None
    assert done.error["code"] == "sweep_interrupted"
    with scope(acme):
        kinds = list(
            PrivacyEntry.objects.of(acme).filter(job=done).order_by("seq").values_list("kind", flat=True)
        )
    assert kinds.count("charged") == 1
    assert kinds[-1] == "failed"


def test_what_cannot_be_swept_is_refused_with_the_field(api: Any, many_words: str) -> None:
    refused = api.post(
        "/v1/fine_tuning/jobs", {"training_file": many_words, "method": "lora", "sweep": {"runs": 10}}
    )
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "sweep"
    few = api.post("/v1/fine_tuning/jobs", {"training_file": many_words, "sweep": {"runs": 1}})
    assert few.status_code == 400


def test_a_sweep_paused_between_two_runs_goes_on_and_is_charged_once(
    api: Any, acme: Any, many_words: str
) -> None:
    job = started(api, many_words, privacy={"epsilon": 8}, sweep={"runs": 10})
    row = row_of(acme, job["id"])
    lease = running.claim(row.tenant_id, row.pk, worker="test")
    assert lease is not None

    def is_stopping() -> bool:
        """This worker is asked to stop once three runs are done."""
        with scope(acme):
            return JobEvent.objects.of(acme).filter(job=row, kind=JobEvent.Kind.METRICS).count() >= 3

    training.run(lease, is_stopping=is_stopping)
    stopped = row_of(acme, job["id"])
    assert stopped.state == Job.State.QUEUED
    assert stopped.checkpoint_id is not None
    done = train(acme, job["id"])
    assert done.state == Job.State.SUCCEEDED, done.error
    with scope(acme):
        entries = PrivacyEntry.objects.of(acme).filter(job=done, kind="charged").order_by("seq")
        assert [entry.mechanism["name"] for entry in entries] == ["train", "sweep_score", "held_out"]
