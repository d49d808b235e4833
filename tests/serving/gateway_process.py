"""The gateway as a process of its own, clients that hammer it, and a proxy that cuts or freezes what it depends on."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tests.serving.made import ROOT


class GatewayProcess:
    """`uvicorn saas.gateway_asgi:application` on a unix socket."""

    def __init__(self, folder: Path, engine_socket: Path, **environment: str) -> None:
        self.socket = folder / "gateway.sock"
        self.socket.unlink(missing_ok=True)
        given = os.environ | {"ENGINE_SOCKET": str(engine_socket), "PYTHONPATH": str(ROOT)} | environment
        command = [
            sys.executable,
            "-m",
            "uvicorn",
            "saas.gateway_asgi:application",
            "--uds",
            str(self.socket),
        ]
        command += ["--log-level", "warning", "--no-access-log", "--timeout-graceful-shutdown", "2"]
        self.process = subprocess.Popen(command, env=given, cwd=folder)

    def wait(self, *, seconds: float = 30.0) -> None:
        """Return once it listens."""
        until = time.monotonic() + seconds
        while not self.socket.exists():
            assert self.process.poll() is None, "the gateway ended"
            assert time.monotonic() < until, "the gateway does not listen"
            time.sleep(0.02)

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


class UnixHttp(http.client.HTTPConnection):
    """HTTP over a unix socket, kept open."""

    def __init__(self, path: Path, *, timeout: float = 30.0) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Open the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@dataclass
class Hammer:
    """Clients in threads, each asking again as soon as it is answered; notes every answer with its time."""

    path: Path
    key: str
    body: str
    clients: int
    url: str = "/v1/classify"
    answers: list[tuple[float, int, str]] = field(
        default_factory=list
    )  # (time.monotonic, status, request id)
    broken: int = 0  # requests that got no answer
    _stopped: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Begin."""
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(self.clients)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End after the requests under way."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(30)

    def _run(self) -> None:
        with contextlib.closing(UnixHttp(self.path)) as link:
            self._ask(link)

    def _ask(self, link: UnixHttp) -> None:
        headers = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}
        while not self._stopped.is_set():
            try:
                link.request("POST", self.url, self.body, headers)
                response = link.getresponse()
                response.read()
            except (OSError, http.client.HTTPException):
                self.broken += 1
                link.close()
                if self._stopped.wait(0.02):
                    return
                continue
            name = response.headers.get("x-request-id", "")
            self.answers.append((time.monotonic(), response.status, name))

    def of(self, status: int) -> list[tuple[float, str]]:
        """(time, request id) of the answers with this status."""
        return [(at, name) for at, found, name in list(self.answers) if found == status]


@dataclass
class Proxy:
    """Stands between the gateway and a service: open, frozen (nothing passes) or cut (no connection)."""

    url: str  # of the service; `address` is the same through the proxy
    port: int = 0
    _is_cut: bool = False
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @contextmanager
    def running(self) -> Iterator[Proxy]:
        """Serve in a thread for the length of the block."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        self._loop = loop
        server = asyncio.run_coroutine_threadsafe(self._serve(), loop).result(5)
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(server.close)
            self.cut()
            loop.call_soon_threadsafe(loop.call_later, 0.1, loop.stop)
            thread.join(5)
            loop.close()

    def open(self) -> None:
        """Let everything through again."""
        self._loop.call_soon_threadsafe(self._change, False, True)

    def freeze(self) -> None:
        """Keep the connections and let nothing through."""
        self._loop.call_soon_threadsafe(self._change, False, False)

    def cut(self) -> None:
        """Close all connections and take none."""
        self._loop.call_soon_threadsafe(self._change, True, True)

    def _change(self, is_cut: bool, flows: bool) -> None:
        self._is_cut = is_cut
        (self._flowing.set if flows else self._flowing.clear)()
        if is_cut:
            for writer in self._writers:
                writer.transport.abort()

    @property
    def address(self) -> str:
        """The URL that leads through here."""
        return self.url.replace(f":{urlsplit(self.url).port}/", f":{self.port}/")

    async def _serve(self) -> asyncio.Server:
        self._flowing = asyncio.Event()
        self._flowing.set()
        server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection("127.0.0.1", urlsplit(self.url).port)
        self._writers |= {writer, back}
        await asyncio.gather(self._pass(reader, back), self._pass(there, writer))
        self._writers -= {writer, back}

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        writer.close()
