"""kill -9 of real workers: nothing lost, nothing done twice, epsilon never under-counted, as a naive ledger would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from modeling.actions import chain, privacy
from modeling.core import accounting, artifacts
from modeling.models import Job, ModelVersion, PrivacyEntry
from modeling.plans import load_plan
from tenants import vault
from tenants.models import Tenant
from tenants.scope import scope
from tests.modeling.clinic import lease_runs_out, row_of, started, uploaded, words_csv
from tests.modeling.test_jobs_start import pay_for

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("KILLS", "20"))
# Two kills a job (the third attempt must end it); the first of each pair lies between charge and checkpoint.
CRITICAL = ("before-checkpoint", "after-gradient")
OTHERS = ("after-checkpoint", "after-charge")


@dataclass
class KillableWorker:
    """The fork server of kill_worker.py."""

    process: subprocess.Popen[str]
    killed: list[str] = field(default_factory=list)

    def line(self) -> list[str]:
        assert self.process.stdout is not None
        return self.process.stdout.readline().split()

    def run(self, job: Job, truth: Path, window: str, number: int) -> str:
        """One attempt; killed at the window ("killed") unless it ends before ("ended")."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{job.tenant_id} {job.pk} {window} {number} {truth}\n")
        self.process.stdin.flush()
        word, pid = self.line()
        assert word == "pid"
        if self.line()[0] == "here":
            os.kill(int(pid), signal.SIGKILL)
            assert self.line() == ["end", str(int(signal.SIGKILL))]
            return "killed"
        return "ended"


@pytest.fixture
def worker(tiny: Path) -> Iterator[KillableWorker]:
    script = Path(__file__).with_name("kill_worker.py")
    env = os.environ | {"MODELS_DIR": str(tiny), "PYTHONPATH": str(script.parents[2]), "LOG_LEVEL": "ERROR"}
    process = subprocess.Popen(
        [sys.executable, str(script)], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    made = KillableWorker(process)
    assert made.line() == ["ready"]
    yield made
    assert process.stdin is not None
    process.stdin.close()
    process.wait(10)


def charged(tenant: Tenant, job: Job) -> Counter[str]:
    """What the ledger's own lines say was spent."""
    counts: Counter[str] = Counter()
    with scope(tenant):
        for entry in PrivacyEntry.objects.of(tenant).filter(job=job, kind="charged"):
            counts[entry.mechanism["name"]] += entry.mechanism["count"]
    return counts


def naive(tenant: Tenant, job: Job) -> int:
    """The control: steps as a ledger would have them that counts at the checkpoint."""
    with scope(tenant):
        sealed = Job.objects.of(tenant).select_related("checkpoint").get(pk=job.pk).checkpoint
        return int(artifacts.load(vault.get(sealed))[1]["step"]) if sealed else 0


def taken(truth: Path) -> Counter[str]:
    """Gradients and releases that really happened."""
    marks = Counter(truth.read_bytes().decode())
    return Counter({"train": marks["g"], "held_out": marks["r"]})


def test_kills_lose_nothing_and_undercount_nothing(
    api: Any, acme: Tenant, worker: KillableWorker, tmp_path: Path
) -> None:
    pay_for(acme, "business")
    kills, in_window, naive_failures, jobs = 0, 0, 0, 0
    file_id = uploaded(api, acme, words_csv(500))
    while kills < KILLS:
        job = row_of(acme, started(api, file_id, privacy={"epsilon": 0.5})["id"])
        truth = tmp_path / job.public_id
        truth.touch()
        windows = ((CRITICAL[jobs % 2], 3), (OTHERS[jobs % 2], 2))
        jobs += 1
        for window, number in windows:
            outcome = worker.run(job, truth, window, number)
            assert outcome == "killed", window
            kills += 1
            in_window += window in CRITICAL
            real, ledger = taken(truth), charged(acme, job)
            assert real["train"] >= 1, "kills count only after a step"
            assert all(ledger[name] >= real[name] for name in real), (window, real, ledger)
            naive_failures += naive(acme, job) < real["train"]
            lease_runs_out(acme, job.pk)
        assert worker.run(job, truth, "never", 0) == "ended"
        check_end(acme, job, truth)
    print(
        f"\n{kills} kills of {jobs} jobs, {in_window} between charge and checkpoint: 0 lost, 0 under-counted; "
    )
    print(f"a ledger that counts at the checkpoint was below the truth after {naive_failures} of them")
    assert in_window * 2 >= kills
    assert naive_failures >= in_window, "the control must fail"
    with scope(acme):
        chain.verify(acme, exported=chain.export_head(acme))


def check_end(tenant: Tenant, job: Job, truth: Path) -> None:
    """The job succeeded once, and its epsilon covers every gradient that was ever taken for it."""
    done = row_of(tenant, job.public_id)
    assert (done.state, done.attempts, done.epoch) == (Job.State.SUCCEEDED, 3, 3), done.error
    with scope(tenant):
        assert ModelVersion.objects.of(tenant).filter(job=done).count() == 1
    real, ledger = taken(truth), charged(tenant, done)
    assert all(ledger[name] >= real[name] for name in real)
    plan = load_plan(done.plan)
    assert done.epsilon is not None
    assert accounting.epsilon(privacy.spent_mechanisms(plan, real), plan.delta) <= done.epsilon + 1e-9
    assert plan.epsilon is not None
    assert done.epsilon <= plan.epsilon + 1e-9
