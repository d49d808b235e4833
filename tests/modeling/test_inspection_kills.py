"""kill -9 of the worker half-way through an inspection: another one takes the file over, and nothing half stays."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db.models.functions import Now

from modeling.actions import inspection_lease
from modeling.actions.inspection_lease import InspectionLease, Superseded, kept
from modeling.models import Dataset, DatasetVersion, File, Inspection, UnitKey
from modeling.rows import read_rows
from tenants import sweeping
from tenants.models import Tenant, VaultObject
from tenants.scope import scope
from tests.modeling.test_files_api import inspect

KILLS = int(os.environ.get("INSPECTION_KILLS", "3"))
SCRIPT = Path(__file__).with_name("inspect_worker.py")
MOMENTS = ("reading", "sealing", "inserting")
ROWS = 60_000


def content(seed: int) -> bytes:
    source = random.Random(seed)
    rows = [f"P{source.randrange(5_000)},words of note {n},{n % 3}\n" for n in range(ROWS)]
    return ("patient_id,note,triage\n" + "".join(rows)).encode()


@contextmanager
def worker(tenant: Tenant, file: File, moment: str, count: int) -> Iterator[subprocess.Popen[str]]:
    """A worker that stands at the moment."""
    env = os.environ | {"PYTHONPATH": str(SCRIPT.parents[2]), "LOG_LEVEL": "ERROR"}
    command = [sys.executable, str(SCRIPT), str(tenant.pk), str(file.pk), moment, str(count)]
    process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "here\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def expire(tenant: Tenant) -> None:
    """As if the lease had run out."""
    with scope(tenant):
        Inspection.objects.of(tenant).update(lease_until=Now() - timedelta(seconds=1))


def file_of(tenant: Tenant, public_id: str) -> File:
    with scope(tenant):
        return File.objects.of(tenant).get(public_id=public_id)


def require_whole(tenant: Tenant, file: File) -> None:
    """One dataset with every row, its keys and no others, and no living object beside its segments."""
    with scope(tenant):
        version = DatasetVersion.objects.of(tenant).select_related("dataset").get(file=file)
        assert Dataset.objects.of(tenant).count() == 1
        assert UnitKey.objects.of(tenant).count() == version.units
        living = VaultObject.objects.of(tenant).filter(destroyed_at=None)
        assert set(living.values_list("pk", flat=True)) == {version.segments_id}
    assert sum(1 for _ in read_rows(version)) == version.rows == ROWS


@pytest.mark.slow
@pytest.mark.parametrize("kill", range(KILLS))
def test_a_killed_inspection_is_taken_over(kill: int, acme: Any, api: Any) -> None:
    file = file_of(acme, api.upload("a.csv", content(kill)).json()["id"])
    moment = MOMENTS[kill % 3]
    count = 1 if moment == "reading" else random.Random(kill).randrange(1, 4_000)
    with worker(acme, file, moment, count) as process:
        limited = children(process.pid)
        assert limited or moment != "reading"
        process.send_signal(signal.SIGKILL)
        process.wait()
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{pid}").exists() for pid in limited) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in limited)  # the limited child dies with its parent
    with scope(acme):
        assert not Dataset.objects.of(acme).exists()
        assert not UnitKey.objects.of(acme).exists()
    inspect(acme, file.public_id)  # held by the dead one: nothing happens yet
    assert file_of(acme, file.public_id).status == "uploaded"
    expire(acme)
    inspect(acme, file.public_id)
    assert file_of(acme, file.public_id).status == "processed"
    require_whole(acme, file)
    with scope(acme):
        assert Inspection.objects.of(acme).get().attempts == 2
    swept = sweeping.sweep(acme)
    require_whole(acme, file)
    assert swept.left == 0


@pytest.mark.slow
def test_one_that_wakes_after_its_lease_changes_nothing(acme: Any, api: Any) -> None:
    """The control of the fence: the second worker's dataset is the only one, though the first goes on as well."""
    file = file_of(acme, api.upload("a.csv", content(9)).json()["id"])
    with worker(acme, file, "reading", 1) as process:
        expire(acme)
        process.send_signal(signal.SIGSTOP)
        expire(acme)
        inspect(acme, file.public_id)
        require_whole(acme, file)
        process.send_signal(signal.SIGCONT)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline().startswith("end")
    require_whole(acme, file)


def test_a_lease_is_renewed_with_its_progress_and_lost_to_another(
    acme: Any, api: Any, monkeypatch: Any
) -> None:
    file = file_of(acme, api.upload("a.csv", b"a,b\n1,2\n").json()["id"])
    told: list[Any] = []
    monkeypatch.setattr(inspection_lease.live, "publish", lambda group, event: told.append(event))
    with scope(acme):
        Inspection.objects.of(acme).update(attempts=1, lease_until=Now() + timedelta(seconds=1))
        before = Inspection.objects.of(acme).get().lease_until
    lease = InspectionLease(acme, file, 1)
    list(lease.watched([[], [], []]))
    lease.rows, lease.bytes = 7, 99
    assert lease.renew()
    assert lease.renew()
    with scope(acme):
        row = Inspection.objects.of(acme).get()
        assert row.lease_until > before
        assert (row.rows_done, row.bytes_done) == (7, 99)
        Inspection.objects.of(acme).update(attempts=2)
    assert [(event["rows"], event["bytes"]) for event in told] == [(7, 99)]
    assert not lease.renew()
    with pytest.raises(Superseded):
        list(lease.watched([[]]))


def test_renewing_ends_with_the_work(acme: Any, api: Any) -> None:
    file = file_of(acme, api.upload("a.csv", b"a,b\n1,2\n").json()["id"])
    with scope(acme):
        Inspection.objects.of(acme).update(attempts=1, lease_until=Now())
    with kept(acme, file, 1, every=0.01) as lease:
        lease.rows = 3
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            with scope(acme):
                if Inspection.objects.of(acme).get().rows_done == 3:
                    break
    with scope(acme):
        held = Inspection.objects.of(acme).get()
        assert held.rows_done == 3
        lease.rows = 4
        time.sleep(0.05)
        assert Inspection.objects.of(acme).get().lease_until == held.lease_until
