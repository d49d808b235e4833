"""Inspection of a CSV of ten columns beside `pyarrow.csv` on the same file: CPU time on one core, and peak memory.

Run: python -m tests.bench.inspection [MEGABYTES] [ROUNDS] [MEGABYTES FOR MEMORY]
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import django
import pyarrow as pa
from pyarrow import csv

COLUMNS = ("visit_id", "person_id", "visited_on", "weight", "age", "ward", "city", "score", "smoker", "note")
HEADER = ",".join(COLUMNS).encode() + b"\n"
WORDS = "patient reports pain in the left knee after running fever cough since Monday no known allergies prescribed"
CITIES = ("Berlin", "Lyon", "Oslo", "Turin", "Łódź", "Porto", "Ghent", "Malmö")
ROWS_PER_BLOCK, BLOCKS, ROWS_PER_PERSON = 20_000, 20, 8
KEY = bytes(range(32))
ASKED_RATIO, ASKED_MIB = 0.4, 512


def block(seed: int) -> bytes:
    """Some rows: identifiers, a date, numbers, categories and a note, quoted in a tenth of them."""
    source, words = random.Random(seed), WORDS.split()
    rows = []
    for n in range(ROWS_PER_BLOCK):
        note = " ".join(source.choices(words, k=source.randrange(6, 18)))
        if source.random() < 0.1:
            note = f'"{note.replace(" ", ", ", 1)}"'
        person = source.randrange(ROWS_PER_BLOCK // ROWS_PER_PERSON)
        rows.append(
            f"{n:010d},%(of)s{person:06d},{2015 + n % 9}-{n % 12 + 1:02d}-{n % 28 + 1:02d},{source.gauss(80, 12):.2f},"
            f"{n % 100},{'ABC'[n % 3]},{CITIES[n % 8]},{source.random():.6f},{('yes', 'no', '')[n % 3]},{note}\n"
        )
    return "".join(rows).encode()


class Rows:
    """A CSV of about `size` bytes, made while it is read; the people of each block are its own."""

    def __init__(self, size: int) -> None:
        self._blocks = [block(seed) for seed in range(BLOCKS)]
        self._chunks = self._made(size)
        self._rest = memoryview(b"")

    def _made(self, size: int) -> Iterator[bytes]:
        yield HEADER
        made, number = 0, 0
        while made < size:
            made += len(self._blocks[number % BLOCKS])
            yield self._blocks[number % BLOCKS].replace(b"%(of)s", b"P%05d" % number)
            number += 1

    def read(self, size: int) -> bytes:
        """At most so many bytes; none at the end."""
        if not self._rest:
            self._rest = memoryview(next(self._chunks, b""))
        data, self._rest = self._rest[:size], self._rest[size:]
        return bytes(data)


def children_cpu() -> float:
    """CPU seconds of the children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def cpu_seconds(work: Callable[[], Any]) -> float:
    """CPU seconds of some work, its own children's too."""
    own, theirs = time.process_time(), children_cpu()
    work()
    return time.process_time() - own + children_cpu() - theirs


def arrow(path: Path, *, typed: bool) -> None:
    """Read in blocks by one thread; either types are guessed, as by default, or all cells stay texts."""
    types = None if typed else dict.fromkeys(COLUMNS, pa.string())
    reader = csv.open_csv(
        path,
        read_options=csv.ReadOptions(use_threads=False),
        convert_options=csv.ConvertOptions(column_types=types),
    )
    for _ in reader:
        pass


def inspect(path: Path) -> None:
    """Bytes to checked blocks with facts and errors: the child's whole work, and the parent's check of what it says."""
    from modeling.core.child import parse_in_child
    from modeling.core.tables import Reading

    with path.open("rb") as source:
        parsed = parse_in_child(source, Reading("bench.csv"))
        rows = sum(len(piece) for piece in parsed.pieces)
    if not rows or parsed.summary is None or parsed.summary.errors:
        raise SystemExit("The file was not read as it should be.")


def seal(source: BinaryIO, folder: Path) -> None:
    """All of it: rows to frames under their people's keys in a sealed stream; only the database has no part."""
    from modeling.actions import segmenting
    from modeling.core.child import parse_in_child
    from modeling.core.segments import KeyRing, Place
    from modeling.core.tables import Reading
    from saas.lib.sealed import Context, SealWriter

    segmenting.handle_key = lambda tenant: KEY
    with (folder / "segments").open("wb", buffering=0) as target:
        sink = SealWriter(cast(BinaryIO, target), key=KEY, context=Context("bench", "object", 1))
        place, ring = Place("bench", "dataset", 1), KeyRing(KEY, "dataset")
        writing = segmenting.SegmentWriting(cast(Any, None), cast(Any, sink), place, ring)
        parsed = parse_in_child(source, Reading("bench.csv"))
        writing.write(parsed.pieces, segmenting.Cut(1, is_catalogue=False, label_at=8))
        sink.close()


def peak_mib(size: int, folder: Path) -> tuple[float, float]:
    """MiB above idle in this process, which is fresh, while it inspects a streamed file, and the child's peak."""
    source = Rows(size)
    before = memory_mib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    watch = Watch()
    watch.start()
    seal(cast(BinaryIO, source), folder)
    watch.over.set()
    watch.join()
    return memory_mib("VmHWM") - before, watch.peak


class Watch(threading.Thread):
    """The largest VmHWM of this process's children in MiB; their ru_maxrss would count what they were forked from."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.over = threading.Event()
        self.peak = 0.0

    def run(self) -> None:
        """Look every fifth of a second."""
        while not self.over.wait(0.2):
            for task in Path("/proc/self/task").iterdir():
                for pid in (task / "children").read_text().split():
                    with contextlib.suppress(FileNotFoundError, ProcessLookupError, StopIteration):
                        self.peak = max(self.peak, memory_mib("VmHWM", pid))


def memory_mib(name: str, pid: str = "self") -> float:
    """A line of a process's status in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def line(what: str, found: str, asked: str = "") -> None:
    """One row of the table."""
    print(f"{what:<58} {found:>22} {asked:>12}")


def speed(path: Path, rounds: int) -> None:
    """Measure in turns and print medians."""
    size = path.stat().st_size
    works: dict[str, Callable[[], Any]] = {
        "pyarrow.csv, types guessed": lambda: arrow(path, typed=True),
        "pyarrow.csv, all texts": lambda: arrow(path, typed=False),
        "inspect: child and the parent's check": lambda: inspect(path),
    }
    rates: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            rates[name].append(size / cpu_seconds(work) / 1e6)
    typed, texts, ours = (statistics.median(rates[name]) for name in works)
    with path.open("rb") as source:
        whole = size / cpu_seconds(lambda: seal(source, path.parent)) / 1e6
    line("what", "found", "asked")
    for name in works:
        line(name, f"{statistics.median(rates[name]):.0f} MB/CPU s")
    line("inspect and seal by person, to the last frame", f"{whole:.0f} MB/CPU s")
    line("inspect / pyarrow.csv", f"{ours / typed:.2f}", f">= {ASKED_RATIO}")
    line("inspect / pyarrow.csv, all texts", f"{ours / texts:.2f}")
    line("inspect and seal / pyarrow.csv", f"{whole / typed:.2f}")


def main(megabytes: int, rounds: int, for_memory: int) -> None:
    """Speed on a file in a temporary folder, then memory in a fresh process on one that is never on disk."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.csv"
        with path.open("wb") as sink:
            source = Rows(megabytes * 1_000_000)
            while data := source.read(io.DEFAULT_BUFFER_SIZE * 128):
                sink.write(data)
        speed(path, rounds)
    if for_memory:
        command = [sys.executable, "-m", "tests.bench.inspection", "memory", str(for_memory)]
        subprocess.run(command, check=True)


def main_memory(megabytes: int) -> None:
    """One inspection from a stream."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        above, child = peak_mib(megabytes * 1_000_000, Path(folder))
    words = f"memory above idle, {megabytes / 1000:g} GB streamed: worker"
    line(f"{words} ({time.monotonic() - started:.0f} s)", f"{above:.0f} MiB")
    line("  its limited child, in all", f"{child:.0f} MiB")
    line("  both", f"{above + child:.0f} MiB", f"<= {ASKED_MIB} MiB")


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "saas.settings")
    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    if sys.argv[1:2] == ["memory"]:
        with tempfile.TemporaryDirectory() as data:
            os.environ["DATA_DIR"] = data
            django.setup()
            main_memory(int(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as data:
            os.environ["DATA_DIR"] = data
            django.setup()
            given = [int(one) for one in sys.argv[1:]]
            main(*(given + [1_000, 3, 4_000][len(given) :]))
