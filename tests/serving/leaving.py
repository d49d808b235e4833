"""Clients of a gateway process that leave in the middle of a stream, and count what they were sent until then."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.serving.made import ROOT

_COMMAND = ("-m", "uvicorn", "saas.gateway_asgi:application", "--log-level", "warning", "--lifespan", "on")


@dataclass(frozen=True, slots=True)
class Left:
    """One client's account: its request, whether the connection was cut hard, and the tokens in what it was sent."""

    request_id: str
    was_cut: bool
    tokens: int
    is_whole: bool  # the answer had ended before


@contextmanager
def gateway_process(folder: Path, engine_socket: Path) -> Iterator[Path]:
    """uvicorn with the gateway on a unix socket, on the test run's own services; it must stop cleanly."""
    path = folder / "gateway.sock"
    environment = os.environ | {"ENGINE_SOCKET": str(engine_socket), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, *_COMMAND, "--uds", str(path)], env=environment, cwd=folder)
    try:
        until = time.monotonic() + 60
        while not path.exists():
            assert process.poll() is None, "the gateway ended"
            assert time.monotonic() < until, "the gateway did not start"
            time.sleep(0.05)
        yield path
        process.terminate()  # the last usage is written now
        process.wait(20)
    finally:
        process.kill()
        process.wait(5)


async def leave(path: Path, key: str, body: dict[str, Any], *, after: int, is_cut: bool) -> Left:
    """POST a streamed chat, read `after` events, leave: by a cut, or by closing one's own side and reading the rest."""
    content = json.dumps(body | {"stream": True, "logprobs": True}).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: testserver\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {key}\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    reader, writer = await asyncio.open_unix_connection(path, limit=1 << 22)
    writer.write(head.encode() + content)
    answer = await reader.readuntil(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200"), answer + await reader.read(2_000)
    (request_id,) = [
        line.split(b": ")[1].decode() for line in answer.split(b"\r\n") if line.startswith(b"x-request-id")
    ]
    sent = b""
    while sent.count(b"data: ") < after and (piece := await reader.read(1 << 16)):
        sent += piece
    if is_cut:
        writer.transport.abort()
    else:
        writer.write_eof()
        sent += await reader.read()
        writer.close()
    return Left(request_id, is_cut, tokens_in(sent), b"data: [DONE]" in sent)


def tokens_in(sent: bytes) -> int:
    """Tokens of all complete events."""
    lines = [line for line in sent.split(b"\n") if line.startswith(b"data: {") and line.endswith(b"}")]
    choices = [json.loads(line.removeprefix(b"data: "))["choices"][0] for line in lines]
    return sum(len(choice["logprobs"]["content"]) for choice in choices if choice["logprobs"])
