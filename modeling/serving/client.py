"""The asker's side of the wire: one multiplexed connection that comes back by itself, and a blocking call for tasks."""

from __future__ import annotations

import asyncio
import itertools
import socket
import ssl
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

from modeling.serving import wire
from modeling.serving.addresses import TlsAddress, UnixAddress
from modeling.serving.wire import EngineRefusal, Frame, Kind, WireBroken

_READ_BYTES = 256 * 1024
_SLACK_SECONDS = 0.7  # the engine fails a late request itself; this is for an engine that no longer answers
_CONNECT_SECONDS = 3.0


def gone() -> EngineRefusal:
    """The refusal of an engine that cannot be reached."""
    return EngineRefusal(
        "unavailable", "The model server is not reachable. Try again shortly.", retry_after_seconds=1.0
    )


class Broken(EngineRefusal):
    """`unavailable` after the request was sent: the engine may have died of it."""

    def __init__(self) -> None:
        super().__init__("unavailable", gone().message, retry_after_seconds=1.0)


def _refusal(body: Mapping[str, Any]) -> EngineRefusal:
    wait = body.get("retry_after_seconds", 0.0)
    return EngineRefusal(
        str(body.get("code")),
        str(body.get("message")),
        retry_after_seconds=float(wait if isinstance(wait, (int, float)) else 0),
    )


class _Link:
    """One connection and those who wait on it: when it breaks, they and nobody else are told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.waiting: dict[int, asyncio.Queue[Frame]] = {}
        writer.write(wire.hello())
        self.reading = asyncio.create_task(self._read(reader))

    @property
    def is_open(self) -> bool:
        """Whether another request may be sent on it."""
        return not self.writer.is_closing() and not self.reading.done()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        decoder = wire.Decoder()
        greeted = False
        try:
            while data := await reader.read(_READ_BYTES):
                for frame in decoder.feed(data):
                    if not greeted:
                        wire.check_hello(frame)
                        greeted = True
                    elif (waiting := self.waiting.get(frame.id)) is not None:
                        waiting.put_nowait(frame)
        except (OSError, WireBroken):
            pass  # all that waits is told below
        finally:
            self.writer.close()
            for waiting in self.waiting.values():
                waiting.put_nowait(Frame(Kind.FAIL, 0, gone().body()))


class EngineClient:
    """Asks over one connection from one event loop. After a break the next ask connects again."""

    def __init__(
        self, place: Path | UnixAddress | TlsAddress, *, credentials: ssl.SSLContext | None = None
    ) -> None:
        self._place = UnixAddress(place) if isinstance(place, Path) else place
        self._credentials = credentials
        self._numbers = itertools.count(1)
        self._link: _Link | None = None
        self._connecting = asyncio.Lock()

    async def ask(self, op: str, *, tenant: str, seconds: float, **body: Any) -> dict[str, Any]:
        """The answer's body; raises EngineRefusal, also `deadline` and `unavailable`. Cancelling cancels the work."""
        async with aclosing(self.stream(op, tenant=tenant, seconds=seconds, **body)) as frames:
            async for kind, answer in frames:
                if kind is Kind.DONE:
                    return answer
        raise gone()

    async def stream(
        self, op: str, *, tenant: str, seconds: float, **body: Any
    ) -> AsyncGenerator[tuple[Kind, dict[str, Any]], None]:
        """Yields (PART, body)… then (DONE, body); raises EngineRefusal. Closing the iterator early cancels the work."""
        until = asyncio.get_running_loop().time() + seconds + _SLACK_SECONDS
        link = await self._connected(seconds)
        number = next(self._numbers)
        frames = link.waiting[number] = asyncio.Queue()
        ended = False
        try:
            ask = {"op": op, "tenant": tenant, "deadline_ms": seconds * 1000, **body}
            link.writer.write(wire.encode(Frame(Kind.ASK, number, ask)))
            async with asyncio.timeout_at(until):
                await link.writer.drain()
            while not ended:
                async with asyncio.timeout_at(until):
                    frame = await frames.get()
                if frame.kind is Kind.FAIL:
                    ended = True
                    raise _refusal(frame.body) if frame.id else Broken()
                ended = frame.kind is Kind.DONE
                yield frame.kind, dict(frame.body)
        except TimeoutError as error:
            raise EngineRefusal("deadline", "The answer did not come in time. Try again.") from error
        except OSError as error:
            raise Broken from error
        finally:
            del link.waiting[number]
            if not ended and link.is_open:
                link.writer.write(wire.encode(Frame(Kind.CANCEL, number)))

    async def greet(self, seconds: float) -> bool:
        """Whether the engine takes a connection and greets, on a connection of its own."""
        try:
            async with asyncio.timeout(seconds):
                reader, writer = await self._open()
                try:
                    writer.write(wire.hello())
                    await reader.readexactly(4)
                finally:
                    writer.close()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return False
        return True

    async def close(self) -> None:
        """Close the connection; asks under way fail as `unavailable`."""
        link, self._link = self._link, None
        if link is not None:
            link.reading.cancel()
            await asyncio.gather(link.reading, return_exceptions=True)

    async def _connected(self, seconds: float) -> _Link:
        if self._link is not None and self._link.is_open:
            return self._link
        try:
            async with asyncio.timeout(min(seconds, _CONNECT_SECONDS)), self._connecting:
                if self._link is None or not self._link.is_open:
                    self._link = _Link(*await self._open())
                return self._link
        except (OSError, TimeoutError) as error:
            raise gone() from error

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Raises OSError, of which a failed handshake is one."""
        if isinstance(self._place, UnixAddress):
            return await asyncio.open_unix_connection(self._place.path)
        if self._credentials is None:
            raise ConnectionError("an engine on another host is spoken to with a certificate")
        return await asyncio.open_connection(self._place.host, self._place.port, ssl=self._credentials)


def ask_once(path: Path, op: str, *, tenant: str = "", seconds: float = 5.0, **body: Any) -> dict[str, Any]:
    """One blocking request to a socket on a connection of its own; raises EngineRefusal."""
    until = time.monotonic() + seconds
    ask = {"op": op, "tenant": tenant, "deadline_ms": seconds * 1000, **body}
    with socket.socket(socket.AF_UNIX) as link:
        try:
            link.settimeout(max(seconds, 0.001))
            link.connect(str(path))
            link.sendall(wire.hello() + wire.encode(Frame(Kind.ASK, 1, ask)))
            return _first_answer(link, until)
        except TimeoutError as error:
            raise EngineRefusal("deadline", "The model server did not answer in time.") from error
        except (OSError, WireBroken) as error:
            raise gone() from error


def _first_answer(link: socket.socket, until: float) -> dict[str, Any]:
    decoder = wire.Decoder()
    while True:
        link.settimeout(max(until - time.monotonic(), 0.001))
        data = link.recv(_READ_BYTES)
        if not data:
            raise gone()
        for frame in decoder.feed(data):
            if frame.kind is Kind.FAIL:
                raise _refusal(frame.body)
            if frame.kind is Kind.DONE:
                return dict(frame.body)
