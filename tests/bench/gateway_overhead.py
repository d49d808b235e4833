"""What `/v1/classify` costs over the bare model call, and how many requests a CPU second answers, with either engine.

One client: one text, interleaved with the bare call in one run. 16 and 64 clients: CPU time of gateway and engine. Each
on the torch engine (fp32, as the bare call) and on the one that the engine chooses here.

Run: python -m tests.bench.gateway_overhead [ROUNDS]
"""

from __future__ import annotations

import http.client
import json
import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
TEXT = "Pneumonia due to other Gram-negative bacteria, unspecified organism"
WARM_UP = 10
CHOSEN = "auto"  # of ENCODER_ENGINE: the fastest that agrees with torch here
REQUESTS = {1: 200, 16: 1_600, 64: 2_560}  # by clients


@contextmanager
def services() -> Iterator[Path]:
    """Own PostgreSQL and Valkey, migrated, with Django set up; yields a folder for sockets."""
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory(prefix="cloister-bench-") as name:
        os.environ.update(DATA_DIR=name, MODELS_DIR=str(ROOT / ".data" / "models"), OMP_NUM_THREADS="1")
        os.environ.update(
            SECRET_KEY="bench" * 10, KEY_PEPPER="bench", CLOISTER_EMBEDDED="1", CLOISTER_DEMO="0"
        )
        os.environ["DJANGO_SETTINGS_MODULE"] = "saas.settings"
        from saas import embedded

        with embedded.temporary() as running:
            os.environ.update(running.environment())
            import django

            django.setup()
            from django.core.management import call_command

            call_command("migrate", database="migrator", verbosity=0, interactive=False)
            yield Path(name)


@contextmanager
def gateway(folder: Path, engine_socket: Path) -> Iterator[tuple[Path, int]]:
    """The gateway as a process of its own, as it runs in production; yields its socket and process id."""
    path = folder / "gateway.sock"
    environment = os.environ | {"ENGINE_SOCKET": str(engine_socket), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "uvicorn", "saas.gateway_asgi:application", "--uds", str(path)]
    process = subprocess.Popen([*command, "--log-level", "warning", "--no-access-log"], env=environment)
    try:
        until = time.monotonic() + 30
        while not path.exists() and time.monotonic() < until:
            time.sleep(0.05)
        yield path, process.pid
    finally:
        process.terminate()
        process.wait(10)
        path.unlink(missing_ok=True)


class UnixConnection(http.client.HTTPConnection):
    """HTTP over the gateway's unix socket, kept open."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        """Open the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


def bare_call(version: Any) -> Callable[[], object]:
    """Tokenise, encode, classify in this process: what the model alone costs."""
    import torch

    from modeling.core import bases
    from modeling.serving.bert import Bert
    from modeling.serving.encoding import read_tokenizer
    from tests.serving.made import MODELS, head_parts

    torch.set_num_threads(1)
    folder = bases.path(MODELS, "minilm-l6")
    model, tokenizer = Bert(folder), read_tokenizer(folder)
    tensors, _ = head_parts(21, 1)
    weight, bias = (torch.from_numpy(tensors[f"head.{name}"]) for name in ("weight", "bias"))

    def call() -> object:
        with torch.inference_mode():
            features = model.embed([tokenizer.encode(TEXT).ids])
            return torch.softmax(features @ weight.T + bias, 1).topk(10)

    return call


def gateway_call(path: Path, key: str, model: str) -> Callable[[], object]:
    """One POST /v1/classify on a connection that stays open."""
    link = UnixConnection(path)
    body = json.dumps({"model": model, "inputs": [TEXT]})
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}

    def call() -> object:
        link.request("POST", "/v1/classify", body, headers)
        response = link.getresponse()
        content = response.read()
        if response.status != 200:
            raise SystemExit(f"{response.status}: {content.decode()}")
        return content

    return call


def wire_call(engine: Any, version: Any, tenant: Any) -> Callable[[], object]:
    """The engine asked directly on a fresh connection: what is left is HTTP, key, limits and usage."""
    from modeling.serving.targets import serving_target

    body = serving_target(tenant.pk, version.name).body()
    return lambda: engine.ask("classify", tenant=str(tenant.pk), inputs=[TEXT], **body)


def measure(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each call, taken in turn."""
    for call in calls.values():
        for _ in range(WARM_UP):
            call()
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            taken[name].append((time.perf_counter() - began) * 1000)
    return taken


def cpu_seconds(*pids: int) -> list[float]:
    """CPU time of processes so far."""
    return [sum(psutil.Process(pid).cpu_times()[:2]) for pid in pids]


def hammer(path: Path, key: str, model: str, clients: int) -> None:
    """So many clients, each asking again as soon as it is answered; in a process of their own."""

    def ask() -> None:
        call = gateway_call(path, key, model)
        for _ in range(REQUESTS[clients] // clients):
            call()

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def throughput(path: Path, key: str, model: str, clients: int, *pids: int) -> list[float]:
    """CPU milliseconds that each of the processes spends on a request."""
    before = cpu_seconds(*pids)
    work = multiprocessing.get_context("fork").Process(target=hammer, args=(path, key, model, clients))
    work.start()
    work.join()
    if work.exitcode:
        raise SystemExit("the clients failed")
    spent = zip(cpu_seconds(*pids), before, strict=True)
    return [1000 * (now - then) / REQUESTS[clients] for now, then in spent]


def row(name: str, seen: float, unit: str, asked: str = "") -> None:
    """One aligned line."""
    print(f"{name:50}{seen:9.2f} {unit:18}{asked}", flush=True)


def over_the_bare_call(calls: dict[str, Callable[[], object]], rounds: int) -> None:
    """Latency at one client."""
    taken = measure(calls, rounds)
    for name, values in taken.items():
        row(f"{name}, p50", statistics.median(values), "ms")
        row(f"{name}, p99", statistics.quantiles(values, n=100)[98], "ms")
    bare, full = taken["bare model call"], taken["POST /v1/classify"]
    for share, at, asked in ((50, 49, "asked: <= 2"), (99, 98, "asked: <= 5")):
        extra = statistics.quantiles(full, n=100)[at] - statistics.quantiles(bare, n=100)[at]
        row(f"over the bare model call, p{share} less p{share}", extra, "ms", asked)


def on(encoder: str, folder: Path, tenant: Any, key: str, version: Any, rounds: int) -> None:
    """All rows of one engine."""
    from tests.serving.made import EngineProcess

    engine = EngineProcess(folder / "engine.sock", encoder=encoder)
    try:
        engine.wait_for("minilm-l6", seconds=180.0)
        with gateway(folder, engine.socket) as (path, pid):
            call = gateway_call(path, key, version.name)
            call()
            print(f"\n{encoder} engine", flush=True)
            idle = psutil.Process(pid).memory_full_info().pss / 2**20
            row("gateway, idle after its first request", idle, "MiB PSS", "asked: <= 120")
            if encoder == "torch":
                calls = {
                    "bare model call": bare_call(version),
                    "engine by socket": wire_call(engine, version, tenant),
                }
                over_the_bare_call(calls | {"POST /v1/classify": call}, rounds)
            for clients in REQUESTS:
                spent = throughput(path, key, version.name, clients, pid, engine.process.pid)
                row(f"{clients} clients: gateway", spent[0], "CPU ms a request")
                row(f"{clients} clients: engine", spent[1], "CPU ms a request")
                row(f"{clients} clients: both", 1000 / sum(spent), "requests a CPU s")
    finally:
        engine.stop()


def main() -> None:
    """Print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 250
    with services() as folder:
        from tests.make import People
        from tests.modeling.test_jobs_start import pay_for
        from tests.serving.made import head_parts
        from tests.serving.speaking import make_version

        people = People()
        pay_for(people.acme, "business")
        key = people.key(people.acme, "predict")
        version = make_version(people.acme, *head_parts(21, 1))
        for encoder in ("torch", CHOSEN):
            on(encoder, folder, people.acme, key, version, rounds)


if __name__ == "__main__":
    main()
