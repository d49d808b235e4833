"""Pause and resume: legal moves only, within one block, nothing charged or metered twice, the same history after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from billing.models import UsageEvent
from modeling.actions import chain, endings, jobs, moves, pausing, privacy, running, training
from modeling.actions.moves import CANCELLING, PAUSING, TABLE, Move
from modeling.core import accounting
from modeling.models import Job, JobEvent, PrivacyEntry
from modeling.plans import load_plan
from modeling.queries.privacy import spending_of
from modeling.tasks.jobs import stop_tenant_jobs, sweep
from tenants.actions import restore_tenant, suspend_tenant
from tenants.audit import SYSTEM
from tenants.models import Tenant
from tenants.scope import scope
from tests.modeling.clinic import as_owner, lease_runs_out, row_of, started, train
from tests.modeling.test_jobs_end import Stop, claimed, states

ENDS = (Job.State.SUCCEEDED, Job.State.FAILED, Job.State.CANCELLED)


@pytest.fixture
def job(api: Any, acme: Tenant, words_file: str) -> Job:
    return row_of(acme, started(api, words_file)["id"])


def do(api: Any, job: Job, move: str) -> Any:
    body = {"priority": "high"} if move == "priority" else None
    return api.post(f"/v1/fine_tuning/jobs/{job.public_id}/{move}", body)


def put(tenant: Tenant, job: Job, standing: str) -> None:
    """Set the row into a standing, whatever it was before."""
    state = Job.State.RUNNING if standing in (PAUSING, CANCELLING) else standing
    as_owner(
        tenant,
        "UPDATE modeling_job SET state = %s, pause_requested = %s, cancel_requested = %s, epoch = epoch + 1, "
        "lease_until = now() + interval '1 minute', error = '{}', finished_at = %s WHERE id = %s",
        state,
        standing == PAUSING,
        standing == CANCELLING,
        job.created_at if standing in ENDS else None,
        job.pk,
    )


@pytest.mark.parametrize("standing", sorted(TABLE))
def test_every_move_from_every_standing_is_as_the_table_says(
    api: Any, acme: Tenant, job: Job, standing: str
) -> None:
    for move in Move:
        put(acme, job, standing)
        assert moves.standing(row_of(acme, job.public_id)) == standing
        answer = do(api, job, "priority" if move == Move.PRIORITISE else move.value)
        after = moves.standing(row_of(acme, job.public_id))
        if move in TABLE[standing]:
            assert (answer.status_code, after) == (200, TABLE[standing][move]), answer.content
        else:
            assert (answer.status_code, after) == (409, standing)
            assert answer.json()["error"]["code"] == ("job_ended" if standing in ENDS else f"job_{standing}")


def test_the_table_knows_every_state_and_every_move() -> None:
    assert set(TABLE) == {*Job.State.values, PAUSING, CANCELLING}
    assert {move for row in TABLE.values() for move in row} == set(Move)
    assert {to for row in TABLE.values() for to in row.values()} <= set(TABLE)


def test_the_table_in_the_decision_record_is_this_one() -> None:
    record = (Path(__file__).parents[2] / "saas" / "decisions" / "0010-pausing-and-turns.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in record.splitlines() if line.startswith("| ")]
    moves_of = [Move(name) for name in rows[0][1:]]
    told = {
        cells[0]: {move: to for move, to in zip(moves_of, cells[1:], strict=True) if to != "409"}
        for cells in rows[1:]
    }
    assert told == {standing: dict(row) for standing, row in TABLE.items()}


def paused_in_the_middle(api: Any, tenant: Tenant, job: Job, *, after: int = 20) -> Job:
    """Run until so many events have gone by, then ask for the pause through the API."""

    def ask() -> None:
        body = do(api, job, "pause").json()
        assert (body["status"], body["pause_requested"]) == ("running", True)

    training.run(claimed(tenant, job), is_stopping=Stop(after, ask))
    return row_of(tenant, job.public_id)


def charges(tenant: Tenant, job: Job, mechanism: str) -> list[tuple[int, int]]:
    with scope(tenant):
        entries = PrivacyEntry.objects.of(tenant).filter(job=job, kind="charged").order_by("seq")
        found = [entry.mechanism for entry in entries if entry.mechanism["name"] == mechanism]
    return [(one["first"], one["count"]) for one in found]


def test_a_running_job_pauses_after_its_block_and_goes_on_from_there(
    api: Any, acme: Tenant, job: Job
) -> None:
    paused = paused_in_the_middle(api, acme, job)
    assert (paused.state, paused.attempts, paused.worker) == (Job.State.PAUSED, 0, "")
    assert (paused.lease_until, paused.pause_requested) == (None, False)
    assert paused.checkpoint_id is not None
    assert 0 < paused.spent["train"] < paused.plan["steps"]
    assert paused.training_seconds > 0
    spent = privacy.spent_mechanisms(load_plan(paused.plan), paused.spent)
    assert paused.epsilon == pytest.approx(accounting.epsilon(spent, paused.delta))
    with scope(acme):
        kinds = set(PrivacyEntry.objects.of(acme).values_list("kind", flat=True))
        assert kinds == {"reserved", "charged"}
        assert not UsageEvent.objects.of(acme).filter(request_id=paused.public_id).exists()
    assert running.claim(acme.pk, job.pk, worker="w") is None

    assert do(api, job, "resume").json()["status"] == "queued"
    done = train(acme, job.public_id)
    assert done.state == Job.State.SUCCEEDED, done.error
    blocks = charges(acme, done, "train")
    assert [first for first, _count in blocks] == [sum(c for _f, c in blocks[:i]) for i in range(len(blocks))]
    assert sum(count for _first, count in blocks) == done.plan["steps"] == done.spent["train"]
    plan = load_plan(done.plan)
    assert done.epsilon == pytest.approx(accounting.epsilon(plan.mechanisms, plan.delta))
    with scope(acme):
        chain.verify(acme)
        used = UsageEvent.objects.of(acme).get(request_id=done.public_id)
    assert float(used.quantity) == pytest.approx(done.training_seconds, abs=0.01)
    assert done.training_seconds > paused.training_seconds
    assert states(acme, done)[-6:] == ["running", "running", "paused", "queued", "running", "succeeded"]


def test_no_block_is_charged_after_the_pause_was_asked_for(api: Any, acme: Tenant, job: Job) -> None:
    """At every event of a run: whichever it is, at most the block under way is still paid for, and none is lost."""
    seen = 0
    for after in (1, 9, 10, 11):
        before = len(charges(acme, job, "train"))
        asked: list[int] = []

        def ask(asked: list[int] = asked) -> None:
            asked.append(len(charges(acme, job, "train")))
            assert do(api, job, "pause").status_code == 200

        training.run(claimed(acme, job), is_stopping=Stop(after, ask))
        now = row_of(acme, job.public_id)
        assert now.state == Job.State.PAUSED
        after_pause = charges(acme, job, "train")
        assert len(after_pause) == asked[0]
        seen += len(after_pause) > before
        assert do(api, job, "resume").status_code == 200
    done = train(acme, job.public_id)
    assert done.state == Job.State.SUCCEEDED
    assert sum(count for _first, count in charges(acme, done, "train")) == done.plan["steps"]
    assert seen >= 2, "some of the pauses must come after a block"


def test_a_lora_job_pauses_with_its_adapters(api: Any, acme: Tenant, words_file: str) -> None:
    job = row_of(acme, started(api, words_file, method="lora", max_steps=4)["id"])
    paused = paused_in_the_middle(api, acme, job, after=8)
    assert paused.state == Job.State.PAUSED
    assert paused.checkpoint_id is not None
    assert do(api, job, "resume").status_code == 200
    done = train(acme, job.public_id)
    assert done.state == Job.State.SUCCEEDED, done.error
    assert charges(acme, done, "train") == [(step, 1) for step in range(4)]
    assert len(charges(acme, done, "head_start")) == 1


def test_a_job_without_privacy_pauses_too(api: Any, acme: Tenant, words_file: str) -> None:
    off = {"mode": "off", "reason": "a control"}
    job = row_of(acme, started(api, words_file, privacy=off)["id"])
    paused = paused_in_the_middle(api, acme, job, after=12)
    assert (paused.state, paused.checkpoint_id is not None) == (Job.State.PAUSED, True)
    assert do(api, job, "resume").status_code == 200
    assert train(acme, job.public_id).state == Job.State.SUCCEEDED


def test_a_pause_can_be_withdrawn(api: Any, acme: Tenant, job: Job) -> None:
    def ask_and_withdraw() -> None:
        assert do(api, job, "pause").json()["pause_requested"]
        assert not do(api, job, "resume").json()["pause_requested"]

    training.run(claimed(acme, job), is_stopping=Stop(20, ask_and_withdraw))
    assert row_of(acme, job.public_id).state == Job.State.SUCCEEDED


def test_cancelling_a_paused_job_gives_the_rest_back_and_meters_what_ran(
    api: Any, acme: Tenant, job: Job
) -> None:
    paused = paused_in_the_middle(api, acme, job)
    assert do(api, job, "cancel").json()["status"] == "cancelled"
    done = row_of(acme, job.public_id)
    assert (done.checkpoint_id, done.spent) == (None, paused.spent)
    with scope(acme):
        closing = PrivacyEntry.objects.of(acme).order_by("-seq")[0]
        assert (closing.kind, closing.mechanism["counts"]) == ("released", done.spent)
        assert 0 < spending_of(acme, closing.account).used < 8
        used = UsageEvent.objects.of(acme).get(request_id=job.public_id)
    assert float(used.quantity) == pytest.approx(paused.training_seconds, abs=0.01)


def test_a_pausing_job_whose_worker_died_is_paused_by_the_sweep(api: Any, acme: Tenant, job: Job) -> None:
    lease = claimed(acme, job)
    assert do(api, job, "pause").json()["status"] == "running"
    lease_runs_out(acme, job.pk)
    assert running.claim(acme.pk, job.pk, worker="another") is None
    sweep()
    assert row_of(acme, job.public_id).state == Job.State.PAUSED
    assert running.renew(lease) is False
    assert do(api, job, "resume").status_code == 200
    assert train(acme, job.public_id).state == Job.State.SUCCEEDED


def test_a_worker_that_stops_leaves_a_pausing_job_paused(api: Any, acme: Tenant, job: Job) -> None:
    lease = claimed(acme, job)
    with scope(acme):
        pausing.pause(acme, SYSTEM, job)
    endings.give_back(lease, seconds=5.0)
    now = row_of(acme, job.public_id)
    assert (now.state, now.attempts, now.training_seconds) == (Job.State.PAUSED, 0, 5.0)


def test_a_suspended_tenant_resumes_nothing(api: Any, acme: Tenant, job: Job) -> None:
    claimed(acme, job)
    assert do(api, job, "pause").status_code == 200
    suspend_tenant(acme, reason="unpaid", actor=SYSTEM)
    stop_tenant_jobs(tenant_id=str(acme.pk))
    assert row_of(acme, job.public_id).state == Job.State.PAUSED
    with scope(acme), pytest.raises(jobs.Refusal):
        acme.refresh_from_db()
        pausing.resume(acme, SYSTEM, job)
    restore_tenant(acme, reason="paid", actor=SYSTEM)
    assert do(api, job, "resume").json()["status"] == "queued"


def test_pausing_says_so_on_the_page(api: Any, alice: Any, acme: Tenant, job: Job) -> None:
    page = f"/t/{acme.slug}/training/{job.public_id}/"
    assert "Pause" in alice.get(page).content.decode()
    lease = claimed(acme, job)
    assert alice.post(f"{page}pause/").status_code == 302
    text = alice.get(page).content.decode()
    assert "pausing…" in text
    assert "Do not pause" in text
    endings.pause(lease, seconds=1.0)
    text = alice.get(page).content.decode()
    assert "The run is paused." in text
    assert "stays set aside" in text
    assert alice.post(f"{page}resume/").status_code == 302
    assert 'id="job-place" data-job-waiting' in alice.get(page).content.decode()
    with scope(acme):
        told = JobEvent.objects.of(acme).filter(job=job, data__is_pausing=True)
        assert told.count() == 1


def test_a_viewer_may_not_pause(vera: Any, acme: Tenant, job: Job) -> None:
    for move in ("pause", "resume", "priority"):
        assert vera.post(f"/t/{acme.slug}/training/{job.public_id}/{move}/").status_code == 403


def test_paused_jobs_count_as_waiting_ones(api: Any, acme: Tenant, words_file: str) -> None:
    """Or starting and pausing would pile up jobs without end (the Free plan holds three)."""
    off = {"mode": "off", "reason": "a test of the queue"}
    spec = {"training_file": words_file, "privacy": off}
    for _ in range(3):
        begun = api.post("/v1/fine_tuning/jobs", spec)
        assert begun.status_code == 200
        assert api.post(f"/v1/fine_tuning/jobs/{begun.json()['id']}/pause").status_code == 200
    refused = api.post("/v1/fine_tuning/jobs", spec)
    assert refused.status_code == 402
    assert refused.json()["error"]["code"] == "plan_limit"
