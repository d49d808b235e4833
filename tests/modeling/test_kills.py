"""kill -9 of real workers: nothing lost, nothing done twice, epsilon never under-counted, as a naive ledger would."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from billing.models import UsageEvent
from modeling.actions import chain, privacy
from modeling.core import accounting, artifacts
from modeling.models import Job, ModelVersion, PrivacyEntry
from modeling.plans import load_plan
from tenants import vault
from tenants.models import Tenant
from tenants.scope import scope
from tests.modeling.clinic import lease_runs_out, row_of, started, uploaded, words_csv
from tests.modeling.killable import KillableWorker, charged, killable, taken
from tests.modeling.test_jobs_start import pay_for
from tests.modeling.test_ledger import set_lifetime
from tests.proofs.record import Proof

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("KILLS", "20"))
# Two kills a job (the third attempt must end it); the first of each pair lies between charge and checkpoint.
CRITICAL = (
    "before-checkpoint",
    "after-gradient",
)  # of a LoRA job: of an Opacus step, not of its head's start
OTHERS = ("after-checkpoint", "after-charge")
LORA = {"method": "lora", "max_steps": 8, "privacy": {"epsilon": 0.5}}
HEAD = {"method": "head", "privacy": {"epsilon": 0.5}}
HEAD_EVERY = 5  # LoRA jobs for each job of the head alone, whose kills are counted apart


@pytest.fixture(scope="module")
def worker(tiny_models: Path) -> Iterator[KillableWorker]:
    with killable(tiny_models) as made:
        yield made


def naive(tenant: Tenant, job: Job) -> int:
    """The control: steps as a ledger would have them that counts at the checkpoint."""
    with scope(tenant):
        sealed = Job.objects.of(tenant).select_related("checkpoint").get(pk=job.pk).checkpoint
        return int(artifacts.load(vault.get(sealed))[1]["step"]) if sealed else 0


def test_kills_lose_nothing_and_undercount_nothing(
    api: Any, acme: Tenant, tiny: Path, worker: KillableWorker, tmp_path: Path, proof: Proof
) -> None:
    pay_for(acme, "business")
    begun, counts, jobs = time.monotonic(), Counter[str](), 0
    file_id = uploaded(api, acme, words_csv(1_100))
    while counts["opacus"] < KILLS:
        is_head = jobs % (HEAD_EVERY + 1) == HEAD_EVERY
        job = row_of(acme, started(api, file_id, **(HEAD if is_head else LORA))["id"])
        set_lifetime(acme, 1_000.0)  # the same people over and over: the budget is not what is tried here
        check_job(acme, worker, job, tmp_path / job.public_id, jobs + jobs // (HEAD_EVERY + 1), counts)
        jobs += 1
    with scope(acme):
        chain.verify(acme, exported=chain.export_head(acme))
    assert counts["in_window"] * 2 >= counts["opacus"] + counts["head"]
    assert counts["naive_below"] >= counts["in_window"], "the control must fail"
    found = (
        f"{counts['opacus']} kills of LoRA jobs under Opacus and {counts['head']} of head jobs ({jobs} jobs), "
        f"{counts['in_window']} between charge and checkpoint: 0 lost, 0 twice, 0 under-counted; a ledger that "
        f"counts at the checkpoint was below the truth after {counts['naive_below']}"
    )
    proof.found(
        "kill -9 of training workers after at least one step", found, seconds=time.monotonic() - begun
    )


def check_job(
    tenant: Tenant, worker: KillableWorker, job: Job, truth: Path, turn: int, counts: Counter[str]
) -> None:
    """Kill a job's first two workers, the ledger checked against the truth each time; the third must end it."""
    truth.touch()
    for window, number in ((CRITICAL[turn % 2], 3), (OTHERS[turn % 2], 2)):
        is_step = window == "after-gradient" and job.method == "lora"
        halt = "after-step-gradient" if is_step else window
        assert worker.run(job, truth, halt, number) == "killed", window
        counts["opacus" if job.method == "lora" else "head"] += 1
        counts["in_window"] += window in CRITICAL
        real, ledger = taken(job, truth), charged(tenant, job)
        assert real["train"] >= 1, "kills count only after a step"
        assert all(ledger[name] >= real[name] for name in real), (window, real, ledger)
        counts["naive_below"] += naive(tenant, job) < real["train"]
        lease_runs_out(tenant, job.pk)
    assert worker.run(job, truth, "never", 0) == "ended"
    check_end(tenant, job, truth)


def check_end(tenant: Tenant, job: Job, truth: Path) -> None:
    """The job succeeded once, and its epsilon covers every gradient that was ever taken for it."""
    done = row_of(tenant, job.public_id)
    assert (done.state, done.attempts, done.epoch) == (Job.State.SUCCEEDED, 3, 3), done.error
    with scope(tenant):
        assert ModelVersion.objects.of(tenant).filter(job=done).count() == 1
        assert UsageEvent.objects.of(tenant).filter(request_id=done.public_id).count() == 1
        closings = PrivacyEntry.objects.of(tenant).filter(job=done, kind__in=PrivacyEntry.CLOSING)
        assert [one.kind for one in closings] == ["settled"]
    real, ledger = taken(job, truth), charged(tenant, done)
    assert all(ledger[name] >= real[name] for name in real)
    plan = load_plan(done.plan)
    assert done.epsilon is not None
    assert accounting.epsilon(privacy.spent_mechanisms(plan, real), plan.delta) <= done.epsilon + 1e-9
    assert plan.epsilon is not None
    assert done.epsilon <= plan.epsilon + 1e-9
