"""Training workers in processes of their own, killed or stopped at a chosen moment, and what they really did."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from modeling.models import Job, PrivacyEntry
from tenants.models import Tenant
from tenants.scope import scope

SCRIPT = Path(__file__).with_name("kill_worker.py")


@dataclass
class KillableWorker:
    """The fork server of kill_worker.py: one attempt at a time."""

    process: subprocess.Popen[str]
    pid: int = 0

    def line(self) -> list[str]:
        """The next words that it says."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().split()

    def begin(self, job: Job, truth: Path, window: str, number: int, *, how: str) -> bool:
        """Start an attempt; True once it stands at the window, False when it ended before."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{job.tenant_id} {job.pk} {window} {number} {truth} {how}\n")
        self.process.stdin.flush()
        word, pid = self.line()
        assert word == "pid"
        self.pid = int(pid)
        return self.line()[0] == "here"

    def run(self, job: Job, truth: Path, window: str, number: int) -> str:
        """One attempt; killed at the window ("killed") unless it ends before ("ended")."""
        if not self.begin(job, truth, window, number, how="wait"):
            return "ended"
        os.kill(self.pid, signal.SIGKILL)
        assert self.line() == ["end", str(int(signal.SIGKILL))]
        return "killed"

    def goes_on(self) -> int:
        """Continue a stopped attempt and wait for its end; its exit status."""
        os.kill(self.pid, signal.SIGCONT)
        word, status = self.line()
        assert word == "end"
        return int(status)


@contextmanager
def killable(models: Path) -> Iterator[KillableWorker]:
    """A worker on the tiny models; none of its children outlives the block."""
    env = os.environ | {"MODELS_DIR": str(models), "PYTHONPATH": str(SCRIPT.parents[2]), "LOG_LEVEL": "ERROR"}
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT)], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    made = KillableWorker(process)
    assert made.line() == ["ready"]
    try:
        yield made
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:  # a child still stands at its window: the test failed there
            os.kill(made.pid, signal.SIGKILL)
            process.kill()
            process.wait(10)
        assert process.stdout is not None
        process.stdout.close()


def charged(tenant: Tenant, job: Job) -> Counter[str]:
    """What the ledger's own lines say was spent, by mechanism."""
    counts: Counter[str] = Counter()
    with scope(tenant):
        for entry in PrivacyEntry.objects.of(tenant).filter(job=job, kind="charged"):
            counts[entry.mechanism["name"]] += entry.mechanism["count"]
    return counts


def taken(job: Job, truth: Path) -> Counter[str]:
    """Gradients and releases that really happened, by mechanism: a LoRA job's head starts with full batches."""
    marks = Counter(truth.read_bytes().decode())
    full_batch = "head_start" if job.method == "lora" else "train"
    return Counter({"train": marks["g"], "held_out": marks["r"]}) + Counter({full_batch: marks["s"]})
