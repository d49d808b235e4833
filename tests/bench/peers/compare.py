"""`/v1/classify` beside other serving programs: requests per CPU second of all their processes, taken in turn.

Run: make bench-peers, or python -m tests.bench.peers.compare [SECONDS [ROUNDS]]
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import defaultdict
from pathlib import Path

from tests.bench.peers.servers import ROOT, Server, ours, peer

CLIENTS = (1, 16, 64)
ASKED = {1: 1.0, 16: 2.0, 64: 2.2}
DOCUMENTED = ("FastAPI", "LitServe", "BentoML", "Ray Serve")
PACKED = ("FastAPI packed", "LitServe packed")
REFERENCE, DEFAULT = "Cloister fp32", "Cloister"
START_SECONDS = 180
Figures = dict[tuple[str, int], list[float]]


def model_files(folder: Path) -> tuple[Path, Path]:
    """The base's folder, and the head that every server has."""
    from safetensors.numpy import save_file

    from modeling.core import bases
    from tests.serving.made import MODELS, head_parts

    tensors, _ = head_parts(21, 1)
    head = folder / "head.safetensors"
    save_file({name: tensors[f"head.{name}"] for name in ("weight", "bias")}, head)
    return bases.path(MODELS, "minilm-l6"), head


def is_ready(server: Server, file: Path) -> bool:
    """Whether it answers one request."""
    authorization, body = json.loads(file.read_text().splitlines()[0])
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}/v1/classify",
        json.dumps(body).encode(),
        {"content-type": "application/json", "authorization": authorization},
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return bool(json.load(answer))
    except (urllib.error.URLError, OSError, ValueError):
        return False


def run(server: Server, clients: int, seconds: float, file: Path) -> float:
    """Requests per CPU second of one server under so many clients."""
    before = server.cpu_seconds()
    command = [
        sys.executable,
        "-m",
        "tests.bench.peers.load",
        str(server.port),
        str(clients),
        str(seconds),
        str(file),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    time.sleep(1.2)  # what is written once a second belongs to these requests
    found = json.loads(done.stdout)
    if found["failed"]:
        raise SystemExit(f"{server.name}: {found['failed']} failed: {done.stderr}")
    return float(found["answered"] / (server.cpu_seconds() - before))


def start(servers: list[Server], files: dict[str, Path]) -> None:
    """Start one after another, wait until each answers, warm it up."""
    for server in servers:
        server.start()
        until = time.monotonic() + START_SECONDS
        while not (files[server.name].exists() and is_ready(server, files[server.name])):
            if time.monotonic() > until or (server.process and server.process.poll() is not None):
                raise SystemExit(f"{server.name} did not start: see {server.folder}")
            time.sleep(1)
        print(f"{server.name:18} idle {server.memory():6.0f} MiB", flush=True)
        run(server, 16, 3.0, files[server.name])


def report(figures: Figures) -> None:
    """Medians, and ours over the best of the others."""
    names = list(dict.fromkeys(name for name, _ in figures))
    print(f"\n{'requests per CPU second':28}" + "".join(f"{clients:>4} clients" for clients in CLIENTS))
    middle = {key: statistics.median(values) for key, values in figures.items()}
    for name in names:
        print(f"{name:28}" + "".join(f"{middle[name, clients]:12.1f}" for clients in CLIENTS))
    for label, others, asked in (
        ("fp32 / best as documented", DOCUMENTED, ASKED),
        ("fp32 / best packed", PACKED, dict.fromkeys(CLIENTS, 0.95)),
    ):
        for clients in CLIENTS:
            best = max(others, key=lambda name: middle[name, clients])
            ratio = middle[REFERENCE, clients] / middle[best, clients]
            fast = middle[DEFAULT, clients] / middle[best, clients]
            print(
                f"{label:28} {clients:3} clients {ratio:6.2f} (asked {asked[clients]:.2f}); default {fast:5.2f}; {best}"
            )
    for name in (REFERENCE, DEFAULT):
        for clients in CLIENTS:
            ratio = middle[f"{name}, 64 tenants", clients] / middle[name, clients]
            print(f"{name + ', 64 tenants / one':28} {clients:3} clients {ratio:6.2f} (asked 0.80)")


def main() -> None:
    """Start all, measure in turn, stop all."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 8.0
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    with tempfile.TemporaryDirectory(prefix="peers-") as name:
        folder = Path(name)
        base, head = model_files(folder)
        own = [ours(REFERENCE, folder, "torch"), ours(DEFAULT, folder, "auto")]
        others = [peer(one, folder, base, head) for one in (*DOCUMENTED, *PACKED)]
        files = {server.name: server.folder / server.name.replace(" ", "-") / "one.jsonl" for server in own}
        files |= {server.name: files[REFERENCE] for server in others}
        figures: Figures = defaultdict(list)
        try:
            start([*own, *others], files)
            for _ in range(rounds):
                for clients in CLIENTS:
                    for server in (*own, *others):
                        figures[server.name, clients].append(
                            run(server, clients, seconds, files[server.name])
                        )
                    for server in own:
                        many = files[server.name].with_name("many.jsonl")
                        figures[f"{server.name}, 64 tenants", clients].append(
                            run(server, clients, seconds, many)
                        )
        finally:
            for server in (*own, *others):
                server.stop()
        report(figures)


if __name__ == "__main__":
    main()
