"""kill -9 of the worker that makes a version: never a half one, and the next worker makes it whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db.models.functions import Now

from modeling.actions import version_making
from modeling.models import DatasetVersion, UnitKey, VersionChange
from modeling.tasks.versions import sweep_versions
from tenants.models import Tenant, VaultObject
from tenants.scope import scope
from tests.modeling.chained import asked, first_version, newest, rows_of
from tests.modeling.clinic import uploaded
from tests.proofs.record import Proof

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("VERSION_KILLS", "12"))
WINDOWS = ("reading", "sealed", "committing", "after")
SCRIPT = Path(__file__).with_name("version_worker.py")
HEAD = "person_id,note,label\n"


class Worker:
    """The fork server of version_worker.py."""

    def __init__(self) -> None:
        env = os.environ | {"PYTHONPATH": str(SCRIPT.parents[2]), "LOG_LEVEL": "ERROR"}
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT)], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.line() == ["ready"]

    def line(self) -> list[str]:
        assert self.process.stdout is not None
        return self.process.stdout.readline().split()

    def killed_at(self, change: VersionChange, window: str) -> None:
        """Make the version in a child that is killed at the window."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{change.tenant_id} {change.pk} {window}\n")
        self.process.stdin.flush()
        word, pid = self.line()
        assert (word, self.line()) == ("pid", ["here"])
        os.kill(int(pid), signal.SIGKILL)
        assert self.line() == ["end", str(int(signal.SIGKILL))]


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    made = Worker()
    yield made
    assert made.process.stdin is not None
    made.process.stdin.close()
    made.process.wait(10)
    assert made.process.stdout is not None
    made.process.stdout.close()


def table(people: range, note: str) -> bytes:
    return (HEAD + "".join(f"p{n},{note} {n},l{n % 2}\n" for n in people for _ in range(2))).encode()


def living_segments(tenant: Tenant) -> set[Any]:
    with scope(tenant):
        rows = VaultObject.objects.of(tenant).filter(kind="segments", destroyed_at=None)
        return set(rows.values_list("pk", flat=True))


def lease_over(change: VersionChange) -> None:
    with scope(change.tenant_id):
        rows = VersionChange.objects.of(change.tenant_id).filter(pk=change.pk, state="running")
        rows.update(lease_until=Now())


def test_kills_leave_no_half_version(acme: Tenant, api: Any, worker: Worker, proof: Proof) -> None:
    begun, counts = time.monotonic(), Counter[str]()
    version = first_version(api, acme, table(range(60), "note"))
    dataset = version.dataset.public_id
    expected = Counter(rows_of(version))
    for number in range(KILLS):
        window = WINDOWS[number % len(WINDOWS)]
        people = range(50 + 20 * number, 80 + 20 * number)
        before, keys = living_segments(acme), unit_keys(acme, version)
        file = uploaded(api, acme, table(people, f"later {number}"))
        added = rows_of(first_of(acme, api, file))
        assert asked(api, dataset, "append", file=file).status_code == 200
        with scope(acme):
            change = VersionChange.objects.of(acme).select_related("dataset").get(state="queued")
        during = living_segments(acme) - before
        worker.killed_at(change, window)
        counts[window] += 1
        if window == "after":
            assert newest(acme, dataset).number == change.number
        else:
            assert newest(acme, dataset).number == change.number - 1
            assert Counter(rows_of(newest(acme, dataset))) == expected, "the dataset is as it was"
            assert living_segments(acme) == before | during, "no half object is living"
            assert unit_keys(acme, version) == keys, "no half key is there"
            assert api.get(f"/v1/files/{file}").json()["dataset"] != dataset
        lease_over(change)
        version_making.make(acme.pk, change.pk)  # what the sweep's hint does
        expected += Counter(added)
        now = newest(acme, dataset)
        assert (now.number, now.mode) == (change.number, "append")
        assert Counter(rows_of(now)) == expected
        with scope(acme):
            assert DatasetVersion.objects.of(acme).filter(dataset=version.dataset).count() == number + 2
        assert len(living_segments(acme)) == number + 2, (
            "each version has its object, the files' own are gone"
        )
    counts["naive"] += is_half_made_by_a_naive_worker(acme, api, worker, dataset)
    assert counts["naive"] == 1, "the control must fail"
    places = ", ".join(f"{name}: {counts[name]}" for name in WINDOWS)
    found = (
        f"{KILLS} kills ({places}): 0 half versions, 0 half keys, 0 living objects too many; each version made once by "
        "the next worker, its rows as expected; a worker that writes the version before its rows left a half one"
    )
    proof.found("kill -9 of a worker that makes a version", found, seconds=time.monotonic() - begun)


def is_half_made_by_a_naive_worker(tenant: Tenant, api: Any, worker: Worker, dataset: str) -> bool:
    """The control: whether a version without rows stands there after the kill."""
    assert asked(api, dataset, "remove", units=["p1"]).status_code == 200
    with scope(tenant):
        change = VersionChange.objects.of(tenant).select_related("dataset").get(state="queued")
    worker.killed_at(change, "naive")
    made = newest(tenant, dataset)
    return made.number == change.number and made.segments_id is None


def unit_keys(tenant: Tenant, version: DatasetVersion) -> set[bytes]:
    with scope(tenant):
        rows = UnitKey.objects.of(tenant).filter(dataset=version.dataset).values_list("handle", flat=True)
        return {bytes(handle) for handle in rows}


def first_of(tenant: Tenant, api: Any, file: str) -> DatasetVersion:
    return newest(tenant, api.get(f"/v1/files/{file}").json()["dataset"])


def test_a_worker_that_lost_its_lease_writes_nothing(acme: Tenant, api: Any) -> None:
    """The control beside it: without the epoch in its WHERE, the late worker's version would stand twice."""
    version = first_version(api, acme, table(range(30), "note"))
    dataset = version.dataset.public_id
    asked(api, dataset, "remove", units=["p1"])
    with scope(acme):
        change = VersionChange.objects.of(acme).get(state="queued")
    late = version_making.claim(acme.pk, change.pk)
    assert late is not None
    assert version_making.claim(acme.pk, change.pk) is None, "held"
    lease_over(change)
    sweep_versions()
    version_making.make(acme.pk, change.pk)
    with pytest.raises(version_making.Lost):
        version_making._make(late)
    with scope(acme):
        assert DatasetVersion.objects.of(acme).filter(dataset=version.dataset).count() == 2
    assert len(living_segments(acme)) == 2


def test_a_change_that_kills_its_workers_is_given_up(acme: Tenant, api: Any, worker: Worker) -> None:
    dataset = first_version(api, acme, table(range(30), "note")).dataset.public_id
    asked(api, dataset, "remove", units=["p1"])
    with scope(acme):
        change = VersionChange.objects.of(acme).get(state="queued")
    for _ in range(version_making.ATTEMPTS):
        worker.killed_at(change, "sealed")
        lease_over(change)
    version_making.make(acme.pk, change.pk)
    body = api.get(f"/v1/datasets/{dataset}/versions/2").json()
    assert (body["status"], body["error"]["code"]) == ("failed", "failed")
    assert asked(api, dataset, "remove", units=["p1"]).status_code == 200
