"""Event to client over 200 WebSockets on one job: delay from before the commit to arrival, and that none is lost.

Run: python -m tests.bench.live_events [SOCKETS] [EVENTS]
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.bench.gateway_overhead import ROOT, services

EVERY_SECONDS = 0.25
SETTLE_SECONDS = 5.0  # 200 sockets opened at once first read their gaps


def serve(folder: Path, port: int) -> subprocess.Popen[bytes]:
    """The web process, as `make run` starts it."""
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "saas.asgi:application",
        "--port",
        str(port),
        "--ws",
        "websockets",
    ]
    environment = os.environ | {"ENGINE_SOCKET": str(folder / "no-engine.sock"), "PORT": str(port)}
    process = subprocess.Popen(
        [*command, "--log-level", "warning", "--timeout-graceful-shutdown", "2"], env=environment, cwd=ROOT
    )
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/openapi.json", timeout=5).close()
            return process
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    process.kill()
    raise SystemExit("The web process did not start.")


def make_job() -> tuple[Any, Any, str]:
    """A tenant, a waiting job of it, and a key."""
    from modeling.models import File, Job
    from tenants.scope import scope
    from tests.make import People

    people = People()
    tenant = people.acme
    with scope(tenant):
        file = File.objects.of(tenant).create(name="bench.csv", purpose="fine-tune", size_bytes=1)
        job = Job.objects.of(tenant).create(file=file, spec={}, state=Job.State.VALIDATING)
    return tenant, job, people.key(tenant)


def announce_all(tenant: Any, job: Any, events: int) -> None:
    """One event every quarter second, stamped before its transaction begins."""
    from modeling.actions.events import announce
    from modeling.actions.telling import Told
    from tenants.scope import scope

    for _ in range(events):
        with scope(tenant):
            announce(job, "metrics", "bench", data=Told({"seconds": time.time()}))
        time.sleep(EVERY_SECONDS)


async def listen(
    url: str, key: str, ready: asyncio.Event, count: list[int], events: int
) -> list[tuple[int, float]]:
    """(seq, delay in milliseconds) of every event that one socket gets."""
    from websockets.asyncio.client import connect

    got: list[tuple[int, float]] = []
    async with connect(url, additional_headers={"Authorization": f"Bearer {key}"}, open_timeout=60) as socket:
        count[0] += 1
        if count[0] == count[1]:
            ready.set()
        while len(got) < events:
            event = json.loads(await asyncio.wait_for(socket.recv(), 60))
            got.append((event["seq"], 1000 * (time.time() - event["data"]["seconds"])))
    return got


async def run(port: int, sockets: int, events: int) -> list[list[tuple[int, float]]]:
    """Connect all, then announce from a thread."""
    tenant, job, key = await asyncio.to_thread(make_job)
    url = f"ws://127.0.0.1:{port}/ws/jobs/{job.public_id}?after=0"
    ready, count = asyncio.Event(), [0, sockets]
    tasks = [asyncio.create_task(listen(url, key, ready, count, events)) for _ in range(sockets)]
    await ready.wait()
    await asyncio.sleep(SETTLE_SECONDS)
    threading.Thread(target=announce_all, args=(tenant, job, events), daemon=True).start()
    return await asyncio.gather(*tasks)


def main() -> None:
    """Print the median, the 95th percentile and what was lost."""
    sockets = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    events = int(sys.argv[2]) if len(sys.argv) > 2 else 40
    with services() as folder:
        from saas.processes import free_port

        port = free_port()
        web = serve(folder, port)
        try:
            heard = asyncio.run(run(port, sockets, events))
        finally:
            web.terminate()
            web.wait(15)
    delays = [delay for rows in heard for _, delay in rows]
    wrong = sum([seq for seq, _ in rows] != list(range(1, events + 1)) for rows in heard)
    p95 = statistics.quantiles(delays, n=20)[-1]
    print(
        f"{sockets} sockets, {events} events: median {statistics.median(delays):.0f} ms, p95 {p95:.0f} ms "
        f"(asked 250), sockets with a lost, repeated or misplaced event: {wrong} (asked 0)"
    )


if __name__ == "__main__":
    main()
