"""What `/v1/classify` costs over the bare model call: one text, one client, interleaved in one run (wall and CPU time).

Run: python -m tests.bench.gateway_overhead [ROUNDS]
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
TEXT = "Pneumonia due to other Gram-negative bacteria, unspecified organism"
WARM_UP = 10
GATEWAY = (
    "import sys, django; django.setup(); import uvicorn; "
    "uvicorn.run('modeling.serving.gateway:application', uds=sys.argv[1], log_level='warning', lifespan='on')"
)


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
    """The gateway as a process of its own; yields its socket and process id."""
    path = folder / "gateway.sock"
    environment = os.environ | {"ENGINE_SOCKET": str(engine_socket), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", GATEWAY, str(path)], env=environment)
    try:
        until = time.monotonic() + 30
        while not path.exists() and time.monotonic() < until:
            time.sleep(0.05)
        yield path, process.pid
    finally:
        process.terminate()
        process.wait(10)


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


def main() -> None:
    """Print medians and the difference."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 250
    with services() as folder:
        from tests.make import People
        from tests.serving.made import EngineProcess, head_parts
        from tests.serving.speaking import make_version

        people = People()
        tenant, key = people.acme, people.key(people.acme, "predict")
        version = make_version(tenant, *head_parts(21, 1))
        engine = EngineProcess(folder / "engine.sock")
        try:
            engine.wait_for("minilm-l6")
            with gateway(folder, engine.socket) as (path, pid):
                calls = {
                    "bare model call": bare_call(version),
                    "engine by socket": wire_call(engine, version, tenant),
                    "POST /v1/classify": gateway_call(path, key, version.name),
                }
                before = cpu_seconds(pid, engine.process.pid)
                taken = measure(calls, rounds)
                spent = [
                    now - then for now, then in zip(cpu_seconds(pid, engine.process.pid), before, strict=True)
                ]
                memory = {
                    name: psutil.Process(p).memory_full_info().pss for name, p in _processes(pid, engine)
                }
        finally:
            engine.stop()
    for name, values in taken.items():
        p50, p99 = statistics.median(values), statistics.quantiles(values, n=100)[98]
        print(f"{name:20} p50 {p50:6.2f} ms   p99 {p99:6.2f} ms")
    extra = [
        full - bare for full, bare in zip(taken["POST /v1/classify"], taken["bare model call"], strict=True)
    ]
    print(f"{'over the bare call':20} p50 {statistics.median(extra):6.2f} ms   (asked: at most 3)")
    asked = rounds + WARM_UP
    print(
        f"CPU a request: gateway {spent[0] / asked * 1e3:.2f} ms, engine {spent[1] / asked / 2 * 1e3:.2f} ms"
    )
    print("memory, PSS MiB:", ", ".join(f"{name} {size / 2**20:.0f}" for name, size in memory.items()))


def _processes(gateway_pid: int, engine: Any) -> list[tuple[str, int]]:
    return [("gateway", gateway_pid), ("engine", engine.process.pid)]


if __name__ == "__main__":
    main()
