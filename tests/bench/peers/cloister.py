"""Our side of the comparison: own PostgreSQL, Valkey, engine and gateway; writes the requests of 1 and of 64 tenants.

python -m tests.bench.peers.cloister FOLDER PORT
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.bench.gateway_overhead import services
from tests.bench.peers.texts import texts

TENANTS, CLASSES, RANK = 64, 21, 8
START_SECONDS = 60.0


def write_requests(folder: Path) -> None:
    """`one.jsonl`: one tenant's head; `many.jsonl`: 64 tenants' own adapters, request by request another tenant."""
    from tests.make import People
    from tests.serving.made import head_parts

    people = People()
    lines: dict[str, list[tuple[str, str, str]]] = {"one": [], "many": []}
    head = customer(people, 0, *head_parts(CLASSES, 1))
    own = [customer(people, number + 1, *adapters(number)) for number in range(TENANTS)]
    for number, text in enumerate(texts()):
        lines["one"].append((*head, text))
        lines["many"].append((*own[number % TENANTS], text))
    for name, rows in lines.items():
        written = [
            json.dumps([f"Bearer {key}", {"model": model, "inputs": [text]}]) for key, model, text in rows
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(written))


def customer(people: Any, number: int, tensors: Any, config: Any) -> tuple[str, str]:
    """A tenant on the largest plan with one model: its key and the model's name."""
    from billing.models import Subscription
    from tenants import actions
    from tenants.scope import scope
    from tests.serving.speaking import make_version

    tenant = actions.create_tenant(people.user(f"owner-{number}"), f"Customer {number}", "general")
    with scope(tenant):
        Subscription.objects.of(tenant).update_or_create(
            tenant=tenant, defaults={"plan": "business", "status": "active"}
        )
    return people.key(tenant, "predict"), make_version(tenant, tensors, config).name


def adapters(seed: int) -> tuple[Any, Any]:
    """A classifier with LoRA of rank 8 on query and value of every layer."""
    import numpy as np

    from tests.serving.made import WIDTH, head_parts

    tensors, config = head_parts(CLASSES, seed)
    chance = np.random.default_rng(seed + 1000)
    for layer in range(6):
        for part in ("query", "value"):
            name = f"lora.encoder.layer.{layer}.attention.self.{part}"
            tensors[f"{name}.A"] = chance.normal(0, 0.1, (RANK, WIDTH)).astype(np.float32)
            tensors[f"{name}.B"] = chance.normal(0, 0.1, (WIDTH, RANK)).astype(np.float32)
    return tensors, config | {"method": "lora", "rank": RANK, "alpha": 2 * RANK}


def engine_on(socket: Path) -> subprocess.Popen[bytes]:
    """The engine, ready to classify."""
    from modeling.serving.client import ask_once
    from modeling.serving.wire import EngineRefusal

    command = [sys.executable, "-m", "modeling.serving.engine", "--socket", str(socket)]
    process = subprocess.Popen([*command, "--models", os.environ["MODELS_DIR"]])
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        time.sleep(0.2)
        try:
            if ask_once(socket, "health")["bases"]["minilm-l6"] == "ready":
                return process
        except EngineRefusal:
            continue
    raise SystemExit("The engine did not start.")


def main(folder: Path, port: int) -> None:
    """Serve until SIGTERM."""
    with services() as home:
        write_requests(folder)
        socket = home / "engine.sock"
        engine = engine_on(socket)
        command = [sys.executable, "-m", "uvicorn", "saas.gateway_asgi:application", "--port", str(port)]
        environment = os.environ | {"ENGINE_SOCKET": str(socket)}
        gateway = subprocess.Popen([*command, "--no-access-log", "--log-level", "warning"], env=environment)
        signal.signal(signal.SIGTERM, lambda *_: gateway.terminate())
        gateway.wait()
        engine.terminate()
        engine.wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
