"""How jobs end: cancelled at a block, given back by a stopping worker, failed with a cause, given up after three."""

from __future__ import annotations

from typing import Any

import pytest
from django.db.models import F

from billing.models import UsageEvent
from modeling.actions import chain, endings, endpoints, running, training
from modeling.actions import jobs as job_actions
from modeling.core.types import Progress
from modeling.models import Endpoint, EndpointChange, Job, JobEvent, ModelVersion, PrivacyEntry
from modeling.queries.privacy import spending_of
from modeling.tasks.jobs import note_loss, stop_tenant_jobs, sweep, train_job
from tenants import vault
from tenants.actions import restore_tenant, suspend_tenant
from tenants.audit import SYSTEM
from tenants.models import Tenant, VaultObject
from tenants.scope import scope
from tests.modeling.clinic import lease_runs_out, row_of, started, train


@pytest.fixture
def job(api: Any, acme: Tenant, words_file: str) -> Job:
    return row_of(acme, started(api, words_file)["id"])


class Stop:
    """Says yes after so many questions; with a block's worth of work done before."""

    def __init__(self, after: int, then: Any = None) -> None:
        self.left, self.then = after, then

    def __call__(self) -> bool:
        self.left -= 1
        if self.left != 0:
            return False
        if self.then is None:
            return True
        self.then()
        return False


def claimed(tenant: Tenant, job: Job) -> running.Lease:
    lease = running.claim(tenant.pk, job.pk, worker="w")
    assert lease is not None
    return lease


def states(tenant: Tenant, job: Job) -> list[str]:
    with scope(tenant):
        events = JobEvent.objects.of(tenant).filter(job=job, kind=JobEvent.Kind.STATE).order_by("seq")
        return [event.data["state"] for event in events]


def test_a_cancel_is_honoured_after_the_block_was_charged(api: Any, acme: Tenant, job: Job) -> None:
    def cancel() -> None:
        assert api.post(f"/v1/fine_tuning/jobs/{job.public_id}/cancel").json()["cancel_requested"]

    training.run(claimed(acme, job), is_stopping=Stop(20, cancel))
    done = row_of(acme, job.public_id)
    assert done.state == Job.State.CANCELLED
    planned = done.plan["mechanisms"][0]["count"]
    assert 0 < done.spent["train"] < planned
    assert done.checkpoint_id is None
    assert states(acme, job)[-2:] == ["running", "cancelled"]
    with scope(acme):
        closing = PrivacyEntry.objects.of(acme).order_by("-seq")[0]
        assert closing.kind == "released"
        assert closing.mechanism["counts"] == done.spent
        account = closing.account
        assert 0 < spending_of(acme, account).used < 8
        assert UsageEvent.objects.of(acme).filter(request_id=job.public_id).count() == 1
        live = VaultObject.objects.of(acme).filter(kind="checkpoint", destroyed_at=None)
        assert not live.exists()
    assert api.post(f"/v1/fine_tuning/jobs/{job.public_id}/cancel").status_code == 409


def test_a_stopping_worker_gives_the_job_back_and_another_goes_on(acme: Tenant, job: Job) -> None:
    training.run(claimed(acme, job), is_stopping=Stop(25))
    waiting = row_of(acme, job.public_id)
    assert (waiting.state, waiting.attempts, waiting.lease_until) == (Job.State.QUEUED, 0, None)
    assert waiting.checkpoint_id is not None
    assert waiting.spent["train"] > 0
    done = train(acme, job.public_id)
    assert done.state == Job.State.SUCCEEDED
    assert done.spent["train"] == done.plan["steps"]
    assert done.epsilon <= 8.0
    with scope(acme):
        assert chain.verify(acme) > 3
        firsts = [
            (entry.mechanism["first"], entry.mechanism["count"])
            for entry in PrivacyEntry.objects.of(acme)
            .filter(kind="charged", mechanism__name="train")
            .order_by("seq")
        ]
    assert [first for first, _count in firsts] == [sum(c for _f, c in firsts[:i]) for i in range(len(firsts))]


def test_a_cause_of_the_users_fails_the_job_with_its_sentence(acme: Tenant, job: Job, settings: Any) -> None:
    settings.MODELS_DIR = settings.DATA_DIR / "nowhere"
    done = train(acme, job.public_id)
    assert done.state == Job.State.FAILED
    assert done.error["code"] == "base_missing"
    assert "is not installed" in done.error["message"]
    with scope(acme):
        assert (
            list(PrivacyEntry.objects.of(acme).order_by("seq").values_list("kind", flat=True))[-1] == "failed"
        )
        assert not UsageEvent.objects.of(acme).filter(request_id=job.public_id).exists()
        account = PrivacyEntry.objects.of(acme).select_related("account")[0].account
        assert spending_of(acme, account).used == 0.0


def test_a_job_whose_worker_dies_three_times_is_given_up(acme: Tenant, job: Job) -> None:
    for attempt in (1, 2, 3):
        assert claimed(acme, job).epoch == attempt
        lease_runs_out(acme, job.pk)
    assert running.claim(acme.pk, job.pk, worker="fourth") is None
    sweep()
    done = row_of(acme, job.public_id)
    assert done.state == Job.State.FAILED
    assert done.error["code"] == "attempts_exhausted"
    assert done.error["attempts"] == ["worker_lost"] * 3
    assert "3 times" in done.error["message"]
    assert "disappeared without a word" in done.error["message"]
    assert done.epoch == 4  # a fourth epoch: whoever is still running is fenced


def poisoned(tenant: Tenant, job: Job, errors: list[BaseException], monkeypatch: pytest.MonkeyPatch) -> Job:
    """Three attempts that each end so after a block that was charged."""
    import modeling.actions.training as running_it

    real = running_it._take

    def broken(attempt: Any, event: Any) -> None:
        real(attempt, event)
        if isinstance(event, Progress):
            raise errors.pop(0)

    monkeypatch.setattr(running_it, "_take", broken)
    while errors:
        kind = type(errors[0])
        if kind is MemoryError:  # it does not rise: the pool's parent would fall with it
            train_job(tenant_id=str(tenant.pk), job_id=str(job.pk))
        else:
            with pytest.raises(kind):
                train_job(tenant_id=str(tenant.pk), job_id=str(job.pk))
    sweep()
    return row_of(tenant, job.public_id)


def test_a_poison_job_names_what_happened_and_keeps_what_was_charged(
    acme: Tenant, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "patient 17 has diabetes"
    errors: list[BaseException] = [
        MemoryError(secret),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        KeyError(secret),
    ]
    done = poisoned(acme, job, errors, monkeypatch)
    assert (done.state, done.attempts) == (Job.State.FAILED, 3)
    assert done.error["attempts"] == ["out_of_memory", "out_of_memory", "internal_error"]
    assert "(1) its worker ran out of memory" in done.error["message"]
    assert "(3) an error inside Cloister stopped it (KeyError)" in done.error["message"]
    assert "Nothing was billed" in done.error["message"]
    with scope(acme):
        told = JobEvent.objects.of(acme).filter(job=job)
        assert [event.level for event in told if "cause" in event.data] == ["warn"] * 3
        assert not [event for event in told if secret in f"{event.message} {event.data}"]
        assert not UsageEvent.objects.of(acme).filter(request_id=done.public_id).exists()
        closing = PrivacyEntry.objects.of(acme).order_by("-seq")[0]
        assert (closing.kind, closing.mechanism["counts"]) == ("failed", done.spent)
        assert closing.epsilon == done.epsilon > 0
        assert done.spent["train"] > 0
        assert 0 < spending_of(acme, closing.account).used < 8


def test_a_lost_attempt_is_followed_by_smaller_micro_batches(api: Any, acme: Tenant, words_file: str) -> None:
    """The same logical batch and the same epsilon; a worker that stopped in good order changes nothing."""
    from modeling.core import memory

    job = row_of(acme, started(api, words_file, method="lora", max_steps=3)["id"])
    seen: list[int] = []
    real = memory.MicroBatches.__init__

    def noted(self: Any, rows: Any, *, tokens: int) -> None:
        seen.append(tokens)
        real(self, rows, tokens=tokens)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory.MicroBatches, "__init__", noted)
        training.run(claimed(acme, job), is_stopping=Stop(6))
        claimed(acme, job)  # a worker that is gone without a word
        lease_runs_out(acme, job.pk)
        done = train(acme, job.public_id)
    assert done.state == Job.State.SUCCEEDED, done.error
    assert seen == [seen[0], seen[0] // 2]
    assert done.epsilon is not None
    assert done.epsilon <= 8.0


def test_a_child_known_to_be_dead_frees_its_job_at_once(acme: Tenant, job: Job) -> None:
    lease = running.claim(acme.pk, job.pk, worker="train@host:7#message1")
    assert lease is not None
    ids = {"tenant_id": str(acme.pk), "job_id": str(job.pk)}
    note_loss(**ids, message="another1-and-more", cause="worker_killed")
    assert row_of(acme, job.public_id).state == Job.State.RUNNING  # not that message's job
    note_loss(**ids, message="message1-and-more", cause="worker_killed")
    after = row_of(acme, job.public_id)
    assert (after.state, after.attempts, after.epoch) == (Job.State.QUEUED, 1, lease.epoch + 1)
    assert running.renew(lease) is False
    assert train(acme, job.public_id).state == Job.State.SUCCEEDED
    with scope(acme):
        told = JobEvent.objects.of(acme).get(job=job, data__has_key="cause")
        assert "killed by the system" in told.message


def test_a_bug_drops_the_lease_and_rises(acme: Tenant, job: Job) -> None:
    with scope(acme):
        Job.objects.of(acme).filter(pk=job.pk).update(recipe={})  # no columns: a bug, not a refusal
    with pytest.raises(KeyError):
        train_job(tenant_id=str(acme.pk), job_id=str(job.pk))
    after = row_of(acme, job.public_id)
    assert (after.state, after.attempts, after.lease_until) == (Job.State.QUEUED, 1, None)


def test_a_cancelled_job_whose_worker_died_is_ended_by_the_sweep(api: Any, acme: Tenant, job: Job) -> None:
    claimed(acme, job)
    assert api.post(f"/v1/fine_tuning/jobs/{job.public_id}/cancel").json()["status"] == "running"
    lease_runs_out(acme, job.pk)
    sweep()
    assert row_of(acme, job.public_id).state == Job.State.CANCELLED


def test_a_suspended_tenants_jobs_stop_and_go_on_after(acme: Tenant, job: Job) -> None:
    lease = claimed(acme, job)
    suspend_tenant(acme, reason="unpaid", actor=SYSTEM)
    stop_tenant_jobs(tenant_id=str(acme.pk))
    assert row_of(acme, job.public_id).state == Job.State.QUEUED
    assert running.renew(lease) is False
    assert running.claim(acme.pk, job.pk, worker="w") is None
    restore_tenant(acme, reason="paid", actor=SYSTEM)
    assert train(acme, job.public_id).state == Job.State.SUCCEEDED


def test_a_second_job_moves_the_endpoint_and_deletes_nothing(api: Any, acme: Tenant, words_file: str) -> None:
    names = []
    for _run in range(2):
        done = train(acme, started(api, words_file, suffix="words", privacy={"epsilon": 3})["id"])
        assert done.model_version is not None
        names.append(done.model_version.name)
    assert api.get("/v1/endpoints/words").json()["model"] == names[1]
    with scope(acme):
        assert EndpointChange.objects.of(acme).count() == 2
    assert api.delete(f"/v1/models/{names[1]}").status_code == 409
    with scope(acme):  # the API would ask an engine to load it first
        endpoints.rollback(acme, SYSTEM, "words")
    assert api.get("/v1/endpoints/words").json()["model"] == names[0]
    assert api.delete(f"/v1/models/{names[1]}").json() == {"id": names[1], "object": "model", "deleted": True}
    assert api.get(f"/v1/models/{names[1]}").status_code == 404
    with scope(acme):
        gone = ModelVersion.objects.of(acme).select_related("object").get(name=names[1])
        with pytest.raises(vault.KeyDestroyed):
            vault.get(gone.object)
    assert api.delete("/v1/endpoints/words").status_code == 200
    with scope(acme):
        assert not Endpoint.objects.of(acme).exists()


def test_time_over_all_attempts_is_billed_once(acme: Tenant, job: Job) -> None:
    lease = claimed(acme, job)
    endings.give_back(lease, seconds=100)
    with scope(acme):
        Job.objects.of(acme).filter(pk=job.pk).update(epoch=F("epoch"))
    done = train(acme, job.public_id)
    assert done.training_seconds > 100
    with scope(acme):
        assert float(UsageEvent.objects.of(acme).get(request_id=job.public_id).quantity) == pytest.approx(
            done.training_seconds, abs=1
        )
        assert not job_actions.end_unowned(acme, done, Job.State.CANCELLED)


def test_an_endpoint_of_another_task_is_left_to_its_callers(acme: Tenant, api: Any, words_file: str) -> None:
    """A finished job never takes a name over from a model that does something else."""
    done = train(acme, started(api, words_file, suffix="words", privacy={"epsilon": 3})["id"])
    with scope(acme):
        assert endpoints.free_name(acme, "words", "classification") == "words"
        assert endpoints.free_name(acme, "words", "chat") == "words-2"
        assert endpoints.free_name(acme, "other", "chat") == "other"
        assert Endpoint.objects.of(acme).get().version_id == done.model_version_id
