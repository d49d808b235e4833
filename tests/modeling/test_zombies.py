"""Workers stopped past their lease, taken over, then continued: every write is fenced, none reaches the ledger."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db.models import Max

from billing.models import UsageEvent
from modeling.actions import chain, running
from modeling.models import Job, JobEvent, ModelVersion, PrivacyEntry
from tenants.models import Tenant, VaultObject
from tenants.scope import scope
from tests.modeling.clinic import as_owner, lease_runs_out, row_of, started, train, uploaded, words_csv
from tests.modeling.killable import KillableWorker, charged, killable, taken
from tests.modeling.test_jobs_start import pay_for
from tests.modeling.test_ledger import set_lifetime
from tests.proofs.record import Proof

pytestmark = pytest.mark.slow
ZOMBIES = int(os.environ.get("ZOMBIES", "10"))
# Where the worker hangs: what it does next when it wakes is a charge, a checkpoint, an event, or the end of the job.
WINDOWS = (
    ("after-charge", 2),
    ("before-checkpoint", 2),
    ("after-checkpoint", 2),
    ("before-progress", 2),
    ("before-end", 1),
)
BODY = {"privacy": {"epsilon": 0.5}, "max_steps": 8}


@pytest.fixture(scope="module")
def worker(tiny_models: Path) -> Iterator[KillableWorker]:
    with killable(tiny_models) as made:
        yield made


def everything(tenant: Tenant, job: Job) -> dict[str, Any]:
    """All that a worker could have written, as it stands."""
    with scope(tenant):
        entries = PrivacyEntry.objects.of(tenant)
        return {
            "ledger": entries.count(),
            "head": entries.aggregate(last=Max("seq"))["last"],
            "events": JobEvent.objects.of(tenant).filter(job=job).count(),
            "models": ModelVersion.objects.of(tenant).filter(job=job).count(),
            "usage": UsageEvent.objects.of(tenant).filter(request_id=job.public_id).count(),
            "kept objects": VaultObject.objects.of(tenant).filter(destroyed_at=None).count(),
            "row": Job.objects.of(tenant).filter(pk=job.pk).values().get(),
        }


def test_zombies_write_nothing(
    api: Any, acme: Tenant, tiny: Path, worker: KillableWorker, tmp_path: Path, proof: Proof
) -> None:
    pay_for(acme, "business")
    begun, zombies = time.monotonic(), 0
    file_id = uploaded(api, acme, words_csv(700))
    while zombies < ZOMBIES:
        method = "lora" if zombies % 10 >= 5 else "head"
        job = row_of(acme, started(api, file_id, method=method, **BODY)["id"])
        set_lifetime(acme, 1_000.0)
        window, number = WINDOWS[zombies % len(WINDOWS)]
        check_zombie(acme, worker, job, tmp_path / job.public_id, window, number)
        zombies += 1
    with scope(acme):
        chain.verify(acme, exported=chain.export_head(acme))
    found = (
        f"{zombies} workers stopped by SIGSTOP, their leases run out, taken over and continued, at "
        f"{len(WINDOWS)} places: 0 ledger writes, 0 events, 0 models, 0 objects left, every job ended once"
    )
    proof.found("zombie workers are fenced", found, seconds=time.monotonic() - begun)


def check_zombie(
    tenant: Tenant, worker: KillableWorker, job: Job, truth: Path, window: str, number: int
) -> None:
    """One worker hangs; another takes the job; the first wakes while the second holds it, and again writes nothing."""
    truth.touch()
    assert worker.begin(job, truth, window, number, how="stop"), window
    lease_runs_out(tenant, job.pk)
    second = running.claim(tenant.pk, job.pk, worker="second")
    assert second is not None
    before, spent = everything(tenant, job), charged(tenant, job)
    assert worker.goes_on() == 0  # it saw that it was fenced, and ended in good order
    assert everything(tenant, job) == before
    assert charged(tenant, job) == spent
    real = taken(job, truth)
    assert all(spent[name] >= real[name] for name in real), (window, real, spent)
    running.release(second)
    done = train(tenant, job.public_id)
    assert done.state == Job.State.SUCCEEDED, done.error
    with scope(tenant):
        assert ModelVersion.objects.of(tenant).filter(job=done).count() == 1
        epochs = [
            entry.facts["epoch"]
            for entry in PrivacyEntry.objects.of(tenant).filter(job=done, kind="charged").order_by("seq")
        ]
    assert epochs == sorted(epochs), "an older owner's charge after a newer one's"


def test_the_control_a_stopped_worker_that_nobody_replaced_goes_on_writing(
    api: Any, acme: Tenant, tiny: Path, worker: KillableWorker, tmp_path: Path
) -> None:
    """Without the take-over the same worker writes all of it: so the fence, not the stop, is what held it back."""
    job = row_of(acme, started(api, uploaded(api, acme, words_csv(700)), **BODY)["id"])
    truth = tmp_path / "truth"
    assert worker.begin(job, truth, "after-charge", 2, how="stop")
    before = everything(acme, job)
    assert worker.goes_on() == 0
    after = everything(acme, job)
    assert after["ledger"] > before["ledger"]
    assert after["models"] == 1
    assert row_of(acme, job.public_id).state == Job.State.SUCCEEDED


def test_the_control_without_the_fence_a_zombie_charges(
    api: Any, acme: Tenant, tiny: Path, worker: KillableWorker, tmp_path: Path
) -> None:
    """The epoch put back by hand, as if no write named it: the zombie charges although another holds the job."""
    job = row_of(acme, started(api, uploaded(api, acme, words_csv(700)), **BODY)["id"])
    truth = tmp_path / "truth"
    assert worker.begin(job, truth, "after-checkpoint", 2, how="stop")
    lease_runs_out(acme, job.pk)
    assert running.claim(acme.pk, job.pk, worker="second") is not None
    as_owner(acme, "UPDATE modeling_job SET epoch = 1 WHERE id = %s", job.pk)
    before = everything(acme, job)
    assert worker.goes_on() == 0
    assert everything(acme, job)["ledger"] > before["ledger"]
