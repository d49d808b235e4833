"""Uploads through HTTP: the server's CPU time into the vault against a plain file, and its memory while gigabytes come.

Run: python -m tests.bench.uploads [MEBIBYTES OF A SPEED ROUND] [ROUNDS] [MEBIBYTES OF THE MEMORY ROUND]
"""

from __future__ import annotations

import http.client
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.bench.gateway_overhead import ROOT, services

MIB = 1 << 20
BLOCK = os.urandom(MIB)
BOUNDARY = "a-file-of-the-bench"
PART_MIB = 64
SETTLE_SECONDS = 2.0


@contextmanager
def server() -> Iterator[tuple[int, psutil.Process]]:
    """The web process with the plain route beside its own; yields port and process."""
    from saas.processes import free_port, port_is_free, wait_until

    port = free_port()
    command = [sys.executable, "-m", "tests.bench.plain_uploads", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"MALLOC_ARENA_MAX": "2"})
    try:
        if not wait_until(lambda: not port_is_free(port), seconds=60, pause=0.1):
            raise SystemExit("The web process did not start.")
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(20)


def send(port: int, key: str, path: str, mebibytes: int, field: str = "file") -> dict[str, Any]:
    """One multipart body of so many mebibytes, made while it is sent."""
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="a.csv"\r\n\r\n'
    ).encode()
    tail = f"\r\n--{BOUNDARY}--\r\n".encode()
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    link.putrequest("POST", path)
    link.putheader("Authorization", f"Bearer {key}")
    link.putheader("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")
    link.putheader("Content-Length", str(len(head) + mebibytes * MIB + len(tail)))
    link.endheaders(head)
    for _ in range(mebibytes):
        link.send(BLOCK)
    link.send(tail)
    return _answer(link)


def call(port: int, key: str, path: str, body: Any) -> dict[str, Any]:
    """POST JSON."""
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    link.request("POST", path, json.dumps(body), headers)
    return _answer(link)


def _answer(link: http.client.HTTPConnection) -> dict[str, Any]:
    answer = link.getresponse()
    body = answer.read()
    link.close()
    if answer.status != 200:
        raise SystemExit(f"{answer.status}: {body.decode(errors='replace')[:300]}")
    return dict(json.loads(body))


def in_parts(port: int, key: str, mebibytes: int) -> None:
    """/v1/uploads from the first call to the last."""
    announced = {
        "filename": "a.csv",
        "purpose": "fine-tune",
        "bytes": mebibytes * MIB,
        "mime_type": "text/csv",
    }
    upload = call(port, key, "/v1/uploads", announced)["id"]
    ids = []
    for begun in range(0, mebibytes, PART_MIB):
        size = min(PART_MIB, mebibytes - begun)
        ids.append(send(port, key, f"/v1/uploads/{upload}/parts", size, "data")["id"])
    call(port, key, f"/v1/uploads/{upload}/complete", {"part_ids": ids})


def cpu_seconds(process: psutil.Process) -> float:
    """User and system time so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


def pss_mib(pid: int) -> float:
    """The process's proportional set size."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    line = next(line for line in rollup.splitlines() if line.startswith("Pss:"))
    return int(line.split()[1]) / 1024


def highest_pss(pid: int, stop: threading.Event, found: list[float]) -> None:
    """The highest while it runs."""
    while not stop.wait(0.05):
        found[0] = max(found[0], pss_mib(pid))


def measure_speed(port: int, process: psutil.Process, key: str, mebibytes: int, rounds: int) -> None:
    """In turns: plain file, vault, vault in parts."""
    ways: dict[str, Callable[[], object]] = {
        "plain file": lambda: send(port, key, "/bench/files", mebibytes),
        "vault": lambda: send(port, key, "/v1/files", mebibytes),
        "vault, in parts": lambda: in_parts(port, key, mebibytes),
    }
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            before, begun = cpu_seconds(process), time.perf_counter()
            way()
            if turn:  # the first round warms up
                spent[name].append((cpu_seconds(process) - before, time.perf_counter() - begun))
    plain = statistics.median(cpu for cpu, _ in spent["plain file"])
    print(f"{mebibytes} MiB, median of {rounds} rounds: CPU time of the web process a GiB, and its rate")
    asked = {"plain file": "", "vault": "  (asked 0.8)", "vault, in parts": "  (with SHA-256 of each part)"}
    for name, rows in spent.items():
        cpu, wall = (statistics.median(column) for column in zip(*rows, strict=True))
        scale = 1024 / mebibytes
        words = f"{cpu * scale:6.2f} s CPU {wall * scale:6.2f} s wall   ratio {plain / cpu:4.2f}{asked[name]}"
        print(f"  {name:<16} {words}")


def measure_memory(port: int, process: psutil.Process, key: str, mebibytes: int) -> None:
    """PSS above idle while one body, then parts, come in."""
    for name, way in (
        ("one body", lambda: send(port, key, "/v1/files", mebibytes)),
        ("in parts", lambda: in_parts(port, key, mebibytes)),
    ):
        time.sleep(SETTLE_SECONDS)
        idle, found, stop = pss_mib(process.pid), [0.0], threading.Event()
        watcher = threading.Thread(target=highest_pss, args=(process.pid, stop, found))
        watcher.start()
        way()
        stop.set()
        watcher.join()
        above = found[0] - idle
        print(f"  {mebibytes} MiB {name:<9} idle {idle:6.1f} MiB, above idle {above:5.1f} MiB  (asked 64)")


def main(mebibytes: int, rounds: int, memory_mebibytes: int) -> None:
    """Services, a tenant with room, the server; then both figures."""
    with services():
        from tests.make import People
        from tests.modeling.test_jobs_start import pay_for

        people = People()
        pay_for(people.acme, "business")
        key = people.key(people.acme)
        with server() as (port, process):
            send(port, key, "/v1/files", 1)
            print("memory of the web process (PSS), before the speed rounds warm anything up:")
            measure_memory(port, process, key, memory_mebibytes)
            measure_speed(port, process, key, mebibytes, rounds)


if __name__ == "__main__":
    words = [int(word) for word in sys.argv[1:]]
    main(*[*words, *(256, 5, 1024)[len(words) :]])
