"""A flood of the largest bodies costs the gateway a bounded amount of memory, and others are answered meanwhile."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.modeling.test_jobs_start import pay_for
from tests.proofs.record import Proof
from tests.serving.gateway_process import GatewayProcess, UnixHttp
from tests.serving.made import EngineProcess

pytestmark = [pytest.mark.slow, pytest.mark.real_weights]
BODIES = 64
MOST_MIB = 640
LARGEST = 8 << 20


def peak_mib(pid: int) -> float:
    """The largest resident size that a process has had."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def post(path: Path, key: str, body: bytes, found: list[int]) -> None:
    """One POST on a connection of its own; its status, or 0 where the connection broke."""
    link = UnixHttp(path, timeout=60)
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    try:
        link.request("POST", "/v1/embeddings", body, headers)
        found.append(link.getresponse().status)
    except OSError:
        found.append(0)
    finally:
        link.close()


def test_memory(
    people: Any, acme: Any, globex: Any, tmp_path: Path, engine: EngineProcess, proof: Proof
) -> None:
    for tenant in (acme, globex):
        pay_for(tenant, "business")
    keys = [people.key(tenant, "predict") for tenant in (acme, globex)]
    head = b'{"model":"minilm-l6","input":['
    objects = (
        head + b"{}," * ((LARGEST - len(head) - 4) // 3) + b"{}]}"
    )  # the worst to parse: many small objects
    texts = json.dumps(
        {"model": "minilm-l6", "input": ["x\U0001f600" * 25_000] * 55}, ensure_ascii=False
    ).encode()
    assert LARGEST * 0.8 < len(texts) <= LARGEST
    begun = time.monotonic()
    gateway = GatewayProcess(tmp_path, engine.socket)
    try:
        gateway.wait()
        small: list[int] = []
        post(gateway.socket, keys[1], b'{"model":"minilm-l6","input":"hello"}', small)
        before = peak_mib(gateway.process.pid)
        flood: list[int] = []
        threads = [
            threading.Thread(
                target=post, args=(gateway.socket, keys[turn % 2], (objects, texts)[turn // 2 % 2], flood)
            )
            for turn in range(BODIES)
        ]
        for thread in threads:
            thread.start()
        waits = []
        while any(thread.is_alive() for thread in threads):
            asked = time.monotonic()
            post(gateway.socket, keys[1], b'{"model":"minilm-l6","input":"hello"}', small)
            waits.append(time.monotonic() - asked)
            time.sleep(0.05)
        for thread in threads:
            thread.join()
        after = peak_mib(gateway.process.pid)
        assert gateway.process.poll() is None
    finally:
        gateway.stop()
    refused = flood.count(429) + flood.count(0)
    assert refused, "the control: the flood was larger than what is let in"
    assert flood.count(400), "the control: some bodies were read and checked"
    assert set(small) == {200}
    assert after <= MOST_MIB
    found = (
        f"{BODIES} bodies of 8 MiB at once: peak {after:.0f} MiB (before {before:.0f}), {refused} told to wait; "
        f"{len(waits)} small requests meanwhile all answered, the slowest after {max(waits):.1f} s"
    )
    proof.found("a flood of large bodies at the gateway", found, seconds=time.monotonic() - begun)
