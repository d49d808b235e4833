"""A version of many rows is made and compared within bounded memory; the control, all rows at once, is not."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modeling.actions import version_diffs, version_making
from modeling.models import VersionChange
from modeling.rows import open_rows
from modeling.tasks.versions import compare_versions
from tenants.models import Tenant
from tenants.scope import scope
from tests.modeling.chained import asked, first_version, newest
from tests.modeling.clinic import uploaded
from tests.proofs.record import Proof

pytestmark = pytest.mark.slow
ROWS = int(os.environ.get("VERSION_ROWS", "100000"))
MOST_MIB = 320  # what partitions wait in before they spill, and one of them twice over


def table(first: int, rows: int) -> bytes:
    """Rows of some 120 bytes, four to a person."""
    words = "some words that somebody wrote about this and that and as long as notes are in practice and no longer"
    lines = [f"person {n // 4},{words} {n},label {n % 3}\n" for n in range(first, first + rows)]
    return ("person_id,note,label\n" + "".join(lines)).encode()


def peak_mib(function: Callable[[], Any]) -> tuple[float, float]:
    """How far the process's resident memory rose above what it was, and the CPU seconds it took."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
    before, begun = resident("VmRSS"), time.process_time()
    kept = function()
    del kept
    return (resident("VmHWM") - before) / 1024, time.process_time() - begun


def resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def test_memory_stays_bounded(acme: Tenant, api: Any, monkeypatch: pytest.MonkeyPatch, proof: Proof) -> None:
    from tests.modeling.test_jobs_start import pay_for

    pay_for(acme, "business")
    begun = time.monotonic()
    base = first_version(api, acme, table(0, ROWS), name="notes.csv")
    dataset = base.dataset.public_id
    file = uploaded(api, acme, table(ROWS // 2 * 2, ROWS // 20), name="more.csv")
    assert asked(api, dataset, "append", file=file).status_code == 200
    with scope(acme):
        change = VersionChange.objects.of(acme).get(state="queued")
    made, made_seconds = peak_mib(lambda: version_making.make(acme.pk, change.pk))
    now = newest(acme, dataset)
    assert now.rows == ROWS + ROWS // 20
    with scope(acme):
        monkeypatch.setattr(version_diffs, "AT_ONCE_ROWS", 0)
        diff = version_diffs.ask(acme, base, now)
    compared, compared_seconds = peak_mib(
        lambda: compare_versions(tenant_id=str(acme.pk), diff_id=str(diff.pk))
    )
    with scope(acme):
        diff.refresh_from_db()
    assert (diff.found or {})["rows"]["added"] == ROWS // 20
    naive, _seconds = peak_mib(lambda: [list(open_rows(one)) for one in (base, now)])
    found = (
        f"{ROWS:,} rows of 120 bytes, {ROWS // 20:,} added: made in {made_seconds:.0f} s CPU, {made:.0f} MiB above "
        f"idle; compared in {compared_seconds:.0f} s, {compared:.0f} MiB; both versions in memory: {naive:.0f} MiB"
    )
    proof.found("versions made and compared in bounded memory", found, seconds=time.monotonic() - begun)
    assert max(made, compared) <= MOST_MIB
    if ROWS >= 1_000_000:
        assert naive > MOST_MIB, "the control must fail"
