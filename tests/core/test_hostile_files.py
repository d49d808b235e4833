"""Each hostile file goes through the real child: the right error, in time, in memory, without its cells."""

from __future__ import annotations

import contextlib
import io
import re
import resource
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from modeling.core.child import Limits, parse_in_child
from modeling.core.tables import FileRefused, Reading, RowError
from tests.core.hostile_files import CANARY, EVERYDAY, Hostile, whole_corpus

CPU_SECONDS = 10
PEAK_BYTES = 512 << 20


class Stream:
    """A file that is made while it is read, by 1 MiB at most."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks: Iterator[bytes] = iter(chunks)

    def read(self, size: int) -> bytes:
        """The next chunk, whatever the size asked for."""
        return next((chunk for chunk in self._chunks if chunk), b"")


class Peak:
    """The largest resident memory of this process's children meanwhile: their high-water marks, every 5 ms."""

    def __init__(self) -> None:
        self.bytes = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            for task in Path("/proc/self/task").iterdir():
                with contextlib.suppress(OSError):
                    for child in (task / "children").read_text().split():
                        self.bytes = max(self.bytes, self._mark(child))

    def _mark(self, child: str) -> int:
        if b"child_main" not in Path(f"/proc/{child}/cmdline").read_bytes():
            return 0  # not yet the child: it still shares its parent's memory
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{child}/status").read_text())
        return int(found.group(1)) << 10 if found else 0


def answer(hostile: Hostile) -> tuple[str, dict[str, int], list[RowError]]:
    """("" or the rule that refuses the file, rows left out by rule, all errors told), from the real child."""
    made: Any = hostile.make()
    source = io.BytesIO(made) if isinstance(made, bytes) else Stream(made)
    reading = Reading(hostile.name, **hostile.declared, budget=hostile.budget)
    limits = Limits(memory_bytes=PEAK_BYTES, cpu_seconds=CPU_SECONDS)
    try:
        parsed = parse_in_child(cast(Any, source), reading, limits)
        for _ in parsed.batches:
            pass
    except FileRefused as refused:
        return refused.code, {}, [refused.error]
    assert parsed.summary is not None
    return "", dict(parsed.summary.errors_by_rule), list(parsed.summary.errors)


def check(case: str) -> None:
    """The right error, with something to do, and nothing of any cell in it."""
    hostile = whole_corpus()[case]
    refused, left, errors = answer(hostile)
    if hostile.row:
        assert (refused, set(left)) == ("", {hostile.rule}), case
    else:
        assert refused == hostile.rule, case
    assert errors, case
    assert all(error.fix for error in errors), case
    assert CANARY not in str(errors), case


def test_the_corpus_is_large_and_of_all_kinds() -> None:
    corpus = whole_corpus()
    assert len(corpus) >= 300
    assert len(EVERYDAY) == len(set(EVERYDAY)) == 27
    assert {case.partition(":")[0] for case in corpus} >= {
        "csv",
        "json",
        "gzip",
        "zip",
        "parquet",
        "encoding",
    }


def test_the_check_can_fail() -> None:
    whole_corpus()
    honest = Hostile("x.csv", lambda: b"a,b\n1,2\n", "")
    assert answer(honest) == ("", {}, [])
    too_far = RowError(1, 1, "x", f"{CANARY} is wrong here")
    assert CANARY in str([too_far])


@pytest.mark.parametrize("case", EVERYDAY)
def test_hostile_files_get_the_right_error(case: str) -> None:
    check(case)


@pytest.mark.slow
def test_the_whole_corpus(request: pytest.FixtureRequest) -> None:
    """All of them, with the slowest, the largest child, and what failed, told at the end."""
    wrong, slowest, spent, largest = [], ("", 0.0), 0.0, ("", 0)
    for case in whole_corpus():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        started = time.monotonic()
        with Peak() as peak:
            try:
                check(case)
            except AssertionError as error:
                wrong.append(f"{case}: {str(error).splitlines()[:2]}")
        largest = max(largest, (case, peak.bytes), key=lambda one: one[1])
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        spent += time.monotonic() - started
        slowest = max(slowest, (case, cpu), key=lambda one: one[1])
    print(
        f"\n{len(whole_corpus())} files, {len(wrong)} wrong; {spent:.0f} s in all; slowest child {slowest[1]:.1f} s CPU"
    )
    print(f"({slowest[0]}); largest child {largest[1] >> 20} MiB ({largest[0]})")
    assert not wrong, "\n".join(wrong)
    assert 0 < largest[1] <= PEAK_BYTES
