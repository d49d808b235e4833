"""A worker that lost its job writes nothing more: no charge, no event, no checkpoint, no model."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

from modeling.actions import endings, events, privacy, running, training
from modeling.actions.running import Fenced, Lease
from modeling.core.types import Charge, Checkpoint, Trained
from modeling.models import Job, JobEvent, ModelVersion, PrivacyEntry
from tenants.models import Tenant, VaultObject
from tenants.scope import scope
from tests.modeling.clinic import lease_runs_out, row_of, started, train


@pytest.fixture
def job(api: Any, acme: Tenant, words_file: str) -> Job:
    return row_of(acme, started(api, words_file)["id"])


@pytest.fixture
def zombie(acme: Tenant, job: Job) -> Lease:
    """The lease of a worker that was silent for so long that another took the job."""
    first = running.claim(acme.pk, job.pk, worker="first")
    assert first is not None
    assert running.claim(acme.pk, job.pk, worker="second") is None  # the control: the lease holds
    lease_runs_out(acme, job.pk)
    second = running.claim(acme.pk, job.pk, worker="second")
    assert second is not None
    assert second.epoch == first.epoch + 1
    return first


def attempt_of(lease: Lease) -> Any:
    return training._Attempt(lease, threading.Event(), lambda: False, 0.0)


def counts(tenant: Tenant) -> tuple[int, ...]:
    with scope(tenant):
        return (
            PrivacyEntry.objects.of(tenant).count(),
            JobEvent.objects.of(tenant).count(),
            ModelVersion.objects.of(tenant).count(),
            VaultObject.objects.of(tenant).filter(destroyed_at=None).count(),
        )


TENSORS = {"weights": np.zeros(3, dtype=np.float32)}


@pytest.mark.parametrize(
    "event", [Charge("train", 0, 1), Checkpoint(1, TENSORS), Trained(TENSORS, {}, {}, 1, 1.0)]
)
def test_a_zombie_writes_nothing(acme: Tenant, zombie: Lease, event: Any) -> None:
    before = counts(acme)
    with pytest.raises(Fenced):
        training._take(attempt_of(zombie), event)
    assert counts(acme) == before


def test_a_zombie_announces_nothing(acme: Tenant, job: Job, zombie: Lease) -> None:
    with pytest.raises(Fenced), scope(acme):
        events.announce(job, JobEvent.Kind.MESSAGE, "from the past", lease=zombie)
    assert row_of(acme, job.public_id).last_seq == job.last_seq


def test_a_zombie_neither_renews_nor_releases_nor_ends(acme: Tenant, job: Job, zombie: Lease) -> None:
    assert running.renew(zombie) is False
    running.drop(zombie)
    for end in (lambda: running.release(zombie), lambda: endings.cancel(zombie, seconds=1.0)):
        with pytest.raises(Fenced):
            end()
    now = row_of(acme, job.public_id)
    assert (now.state, now.worker, now.epoch) == (Job.State.RUNNING, "second", 2)


def test_only_one_of_many_claims_wins(acme: Tenant, job: Job) -> None:
    from tests.modeling.test_ledger import race

    leases = race(lambda: running.claim(acme.pk, job.pk, worker="w"), 6)
    assert len([lease for lease in leases if lease is not None]) == 1


def test_the_keeper_renews_and_notices_the_loss(acme: Tenant, job: Job) -> None:
    lease = running.claim(acme.pk, job.pk, worker="first")
    assert lease is not None
    lease_runs_out(acme, job.pk)
    with running.kept(lease, every=0.05) as lost:
        assert not lost.wait(0.3)
        assert running.claim(acme.pk, job.pk, worker="second") is None  # renewed from the thread
        with scope(acme):
            Job.objects.of(acme).filter(pk=job.pk).update(epoch=7)
        assert lost.wait(2)


def test_more_than_was_reserved_cannot_be_charged(acme: Tenant, job: Job) -> None:
    lease = running.claim(acme.pk, job.pk, worker="first")
    assert lease is not None
    planned = job.plan["mechanisms"][0]["count"]
    training._take(attempt_of(lease), Charge("train", 0, planned))
    with pytest.raises(privacy.OverCharge):
        training._take(attempt_of(lease), Charge("train", planned, 1))
    with pytest.raises(privacy.OverCharge):
        training._take(attempt_of(lease), Charge("another", 0, 1))
    assert row_of(acme, job.public_id).spent == {"train": planned}


def test_a_resumed_job_draws_on_the_same_reservation(acme: Tenant, job: Job) -> None:
    lease = running.claim(acme.pk, job.pk, worker="first")
    assert lease is not None
    training._take(
        attempt_of(lease), Charge("train", 0, 10)
    )  # charged, then the worker dies before any checkpoint
    lease_runs_out(acme, job.pk)
    done = train(acme, job.public_id)
    assert done.state == Job.State.SUCCEEDED, done.error
    planned = {one["name"]: one["count"] for one in job.plan["mechanisms"]}
    assert done.spent["train"] == planned["train"]
    assert done.spent["held_out"] <= planned["held_out"]  # the releases of the lost steps are not made up for
    assert done.epsilon <= 8.0
    with scope(acme):
        charges = PrivacyEntry.objects.of(acme).filter(job=done, kind="charged", mechanism__name="train")
        assert sum(entry.mechanism["count"] for entry in charges) == planned["train"]
        assert {entry.facts["epoch"] for entry in charges} == {1, 2}


def test_a_run_inside_a_transaction_is_refused(acme: Tenant, job: Job) -> None:
    lease = running.claim(acme.pk, job.pk, worker="first")
    assert lease is not None
    with pytest.raises(RuntimeError, match="transaction"), scope(acme):
        training.run(lease, is_stopping=lambda: False)
