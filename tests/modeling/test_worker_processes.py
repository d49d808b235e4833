"""Real workers over the real broker: from an upload to a model without anybody's help, and a worker told to stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modeling.actions import running
from modeling.models import Job, JobEvent, Worker
from tenants.models import Tenant
from tenants.scope import scope
from tests.modeling.clinic import row_of, started, words_csv

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


def worker(queue: str, models: Path, **env: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "celery", "-A", "saas.celery", "worker", "--queues", queue]
    command += [
        "--pool",
        "prefork",
        "--concurrency",
        "1",
        "--hostname",
        f"{queue}@%h",
        "--loglevel",
        "WARNING",
    ]
    environment = (
        os.environ | {"MODELS_DIR": str(models), "CLOISTER_EMBEDDED": "1", "CLOISTER_DEMO": "0"} | env
    )
    return subprocess.Popen([*command, "--without-gossip", "--without-mingle"], env=environment, cwd=ROOT)


def stopped(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    process.wait(30)


def until(condition: Callable[[], bool], *, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)


@pytest.fixture
def quick(tiny: Path) -> Iterator[None]:
    process = worker("quick", tiny)
    yield
    stopped(process)


def state(tenant: Tenant, job_id: str) -> str:
    return row_of(tenant, job_id).state


def test_from_upload_to_model_and_a_worker_that_stops_in_between(
    api: Any, acme: Tenant, tiny: Path, quick: None
) -> None:
    training = worker("train", tiny, OPERATOR_DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    until(lambda: Worker.objects.filter(kind="train").exists())
    file_id = api.upload("words.csv", words_csv(700)).json()["id"]
    first = started(api, file_id, privacy={"epsilon": 2})["id"]
    assert first
    until(lambda: state(acme, first) == Job.State.SUCCEEDED)

    second = started(api, file_id, privacy={"epsilon": 2})["id"]
    until(lambda: row_of(acme, second).spent.get("train", 0) > 0)
    stopped(training)
    waiting = row_of(acme, second)
    assert (waiting.state, waiting.attempts) in ((Job.State.QUEUED, 0), (Job.State.SUCCEEDED, 1))
    assert not Worker.objects.filter(kind="train").exists()
    again = worker("train", tiny)
    try:
        until(lambda: state(acme, second) == Job.State.SUCCEEDED)
        done = row_of(acme, second)
        assert done.spent["train"] == done.plan["steps"]
    finally:
        stopped(again)


def test_a_killed_training_process_is_replaced_at_once(
    api: Any, acme: Tenant, tiny: Path, quick: None
) -> None:
    """kill -9, as the kernel does when memory is out: the parent says so, and the job goes on long before its lease."""
    training = worker("train", tiny)
    try:
        until(lambda: Worker.objects.filter(kind="train").exists())
        file_id = api.upload("words.csv", words_csv(1_500)).json()["id"]
        job_id = started(api, file_id, method="lora", max_steps=24, privacy={"epsilon": 2})["id"]
        until(lambda: row_of(acme, job_id).spent.get("train", 0) > 1)
        before = row_of(acme, job_id)
        killed_at = time.monotonic()
        os.kill(int(before.worker.rpartition("#")[0].rpartition(":")[2]), signal.SIGKILL)
        until(lambda: row_of(acme, job_id).epoch > before.epoch + 1, seconds=40)  # freed, then claimed again
        assert time.monotonic() - killed_at < running.LEASE.total_seconds()
        until(lambda: state(acme, job_id) == Job.State.SUCCEEDED)
    finally:
        stopped(training)
    done = row_of(acme, job_id)
    assert done.attempts == 2
    assert done.spent["train"] == done.plan["steps"]
    with scope(acme):
        lost = JobEvent.objects.of(acme).get(job=done, data__has_key="cause")
        assert (lost.data["cause"], lost.data["attempt"]) == ("worker_killed", 1)
