"""Closed-loop HTTP clients on bare sockets: so many at once, each with one request under way; prints a JSON line.

python -m tests.bench.peers.load PORT CLIENTS SECONDS FILE: FILE has lines of [authorization, body].
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

HEAD = "POST /v1/classify HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"


def requests(file: Path) -> list[bytes]:
    """Whole requests, ready to be written."""
    made = []
    for line in file.read_text().splitlines():
        authorization, body = json.loads(line)
        content = json.dumps(body).encode()
        head = f"{HEAD}authorization: {authorization}\r\ncontent-length: {len(content)}\r\n\r\n"
        made.append(head.encode() + content)
    return made


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body of one response, with a length or in chunks."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    status = int(head.split(" ", 2)[1])
    for line in head.split("\r\n"):
        if line.startswith("content-length:"):
            return status, await reader.readexactly(int(line.partition(":")[2]))
    body = b""
    while True:
        size = int(await reader.readline(), 16)
        body += (await reader.readexactly(size + 2))[:size]
        if not size:
            return status, body


class Load:
    """Clients that take the next request as soon as they have an answer."""

    def __init__(self, port: int, made: Iterator[bytes], until: float) -> None:
        self._port = port
        self._made = made
        self._until = until
        self.took: list[float] = []
        self.failed = 0

    async def client(self) -> None:
        """One client on one connection; a server that closes it is connected to again."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        while time.monotonic() < self._until:
            began = time.monotonic()
            try:
                writer.write(next(self._made))
                status, body = await answer(reader)
            except (ConnectionError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                continue
            if status != 200:
                self.failed += 1
                self.last = body[:200].decode(errors="replace")
                continue
            self.took.append(time.monotonic() - began)
        writer.close()


async def main(port: int, clients: int, seconds: float, file: Path) -> None:
    """Run and print what was answered."""
    load = Load(port, itertools.cycle(requests(file)), time.monotonic() + seconds)
    await asyncio.gather(*(load.client() for _ in range(clients)))
    if load.failed:
        print(load.last, file=sys.stderr)
    took = sorted(load.took)
    print(
        json.dumps({"answered": len(took), "failed": load.failed, "p50": took[len(took) // 2] if took else 0})
    )


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4])))
