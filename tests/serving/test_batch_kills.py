"""kill -9 of the worker in the middle of a batch: every line is answered once and billed once, in the file's order."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from billing.models import UsageEvent
from modeling.models import Batch, BatchSlice
from tenants.models import Tenant, VaultObject
from tenants.scope import scope
from tests.modeling.test_jobs_start import pay_for
from tests.proofs.record import Proof
from tests.serving.batching import change, jsonl, lines_of, make_encoder, request_line, row, started
from tests.serving.made import EngineProcess

pytestmark = pytest.mark.slow
LINES = int(os.environ.get("BATCH_LINES", "10000"))
KILLS = int(os.environ.get("BATCH_KILLS", "5"))
BAD = 97  # every so manieth line asks for a model that nobody has
SCRIPT = Path(__file__).with_name("batch_worker.py")


@pytest.fixture(scope="module")
def tiny_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    models = tmp_path_factory.mktemp("models")
    make_encoder(models)
    process = EngineProcess(tmp_path_factory.mktemp("tiny") / "engine.sock", models=models)
    try:
        process.wait_for("minilm-l6", seconds=30)
        yield process
    finally:
        process.stop()


class Worker:
    """The worker in a process of its own."""

    def __init__(self, engine: Path, lines: int) -> None:
        env = os.environ | {"ENGINE_SOCKET": str(engine), "SLICE_LINES": str(lines)}
        env |= {"PYTHONPATH": str(SCRIPT.parents[2]), "LOG_LEVEL": "ERROR"}
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT)], env=env, stdout=subprocess.PIPE, text=True
        )
        assert self.says() == "ready"

    def says(self) -> str:
        """Its next line; "" once it has ended."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def kill_after(self, slices: int, seconds: float) -> bool:
        """SIGKILL so long after so many slices; False when it had ended by itself."""
        has_ended = any(not self.says() for _number in range(slices))
        time.sleep(seconds)
        if has_ended or self.process.poll() is not None:
            return False
        self.process.send_signal(signal.SIGKILL)
        return self.wait() == -signal.SIGKILL

    def end(self) -> None:
        """Let it come to its end."""
        while self.says():
            pass
        assert self.wait() == 0

    def wait(self) -> int:
        """Its exit status; the pipe is closed."""
        assert self.process.stdout is not None
        self.process.stdout.close()
        return self.process.wait(30)


def test_kills_lose_and_double_nothing(
    api: Any, acme: Tenant, tiny_engine: EngineProcess, settings: Any, proof: Proof
) -> None:
    pay_for(acme, "business")
    begun, chance = time.monotonic(), random.Random(7)
    requests = [request_line(number) for number in range(LINES)]
    for request in requests[::BAD]:
        request["body"] = request["body"] | {"model": "nobodys"}
    batch_id = started(api, jsonl(requests))
    slice_lines = max(20, LINES // (6 * KILLS))
    kills, redone, places = 0, 0, []
    while kills < KILLS:
        worker = Worker(tiny_engine.socket, slice_lines)
        assert worker.kill_after(3 if not kills else 2, chance.uniform(0.02, 0.25)), "ended before the kill"
        kills += 1
        batch = row(acme, batch_id)
        places.append(batch.offset)
        redone += batch.lease_until is not None and batch.lease_until > timezone.now()
        check_middle(acme, batch)
        change(acme, batch_id, lease_until=timezone.now() - timedelta(seconds=1))
    Worker(tiny_engine.socket, slice_lines).end()
    assert places == sorted(set(places)), "each worker goes on where the last commit was"
    found = check_end(acme, batch_id, LINES)
    assert redone, "no kill met a slice under way"
    proof.found(
        "batch worker killed with -9 in the middle of a file",
        f"{LINES:,} lines, {kills} kills ({redone} inside a slice): {found}",
        seconds=time.monotonic() - begun,
    )


def check_middle(tenant: Tenant, batch: Batch) -> None:
    """After a kill: counts, slices and usage tell the same."""
    with scope(tenant):
        slices = list(BatchSlice.objects.of(tenant).filter(batch=batch).values_list("number", flat=True))
        used = UsageEvent.objects.of(tenant).filter(request_id__startswith=batch.public_id).count()
    assert sorted(slices) == list(range(batch.slices))
    assert used == batch.slices
    assert batch.state == "in_progress"


def check_end(tenant: Tenant, batch_id: str, lines: int) -> str:
    """Exact row counts, each id once and in order, and usage equal to what was answered."""
    batch = row(tenant, batch_id)
    outputs, errors = lines_of(batch.output_file), lines_of(batch.error_file)
    assert (batch.state, batch.total) == ("completed", lines)
    assert (batch.completed, batch.failed) == (len(outputs), len(errors))
    wanted = [f"line {number}" for number in range(lines)]
    assert [one["custom_id"] for one in errors] == wanted[::BAD]
    assert [one["custom_id"] for one in outputs] == [
        name for name in wanted if name not in set(wanted[::BAD])
    ]
    assert set(Counter(one["id"] for one in outputs + errors).values()) == {1}
    tokens = sum(one["response"]["body"]["usage"]["total_tokens"] for one in outputs)
    with scope(tenant):
        rows = UsageEvent.objects.of(tenant).filter(request_id__startswith=batch_id)
        billed = sum(float(one.quantity) for one in rows)
        left = VaultObject.objects.of(tenant).filter(kind="batch", destroyed_at=None).count()
    assert billed == tokens // 2
    assert left == 0
    return f"{len(outputs):,} answers and {len(errors):,} errors, each line once and in order, usage exact"
