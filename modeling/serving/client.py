"""The asker's side of the wire: one multiplexed connection that comes back by itself, and a blocking call for tasks."""

from __future__ import annotations

import asyncio
import itertools
import socket
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

from modeling.serving import wire
from modeling.serving.wire import EngineRefusal, Frame, Kind, WireBroken

_READ_BYTES = 256 * 1024
_SLACK_SECONDS = 1.0  # the engine fails a late request itself; this is for an engine that no longer answers


def _gone() -> EngineRefusal:
    return EngineRefusal(
        "unavailable", "The model server is not reachable. Try again shortly.", retry_after_seconds=1.0
    )


def _refusal(body: Mapping[str, Any]) -> EngineRefusal:
    wait = body.get("retry_after_seconds", 0.0)
    return EngineRefusal(
        str(body.get("code")),
        str(body.get("message")),
        retry_after_seconds=float(wait if isinstance(wait, (int, float)) else 0),
    )


class EngineClient:
    """Asks over one connection from one event loop. After a break the next ask connects again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Queue[Frame]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._connecting = asyncio.Lock()

    async def ask(self, op: str, *, tenant: str, seconds: float, **body: Any) -> dict[str, Any]:
        """The answer's body; raises EngineRefusal, also `deadline` and `unavailable`. Cancelling cancels the work."""
        async with aclosing(self.stream(op, tenant=tenant, seconds=seconds, **body)) as frames:
            async for kind, answer in frames:
                if kind is Kind.DONE:
                    return answer
        raise _gone()

    async def stream(
        self, op: str, *, tenant: str, seconds: float, **body: Any
    ) -> AsyncGenerator[tuple[Kind, dict[str, Any]], None]:
        """Yields (PART, body)… then (DONE, body); raises EngineRefusal. Closing the iterator early cancels the work."""
        writer = await self._connected()
        number = next(self._numbers)
        frames = self._waiting[number] = asyncio.Queue()
        ended = False
        try:
            ask = {"op": op, "tenant": tenant, "deadline_ms": seconds * 1000, **body}
            writer.write(wire.encode(Frame(Kind.ASK, number, ask)))
            async with asyncio.timeout(seconds + _SLACK_SECONDS):
                await writer.drain()
            until = asyncio.get_running_loop().time() + seconds + _SLACK_SECONDS
            while not ended:
                async with asyncio.timeout_at(until):
                    frame = await frames.get()
                if frame.kind is Kind.FAIL:
                    ended = True
                    raise _refusal(frame.body)
                ended = frame.kind is Kind.DONE
                yield frame.kind, dict(frame.body)
        except TimeoutError as error:
            raise EngineRefusal("deadline", "The request's time ran out.") from error
        except ConnectionError as error:
            raise _gone() from error
        finally:
            del self._waiting[number]
            if not ended and not writer.is_closing():
                writer.write(wire.encode(Frame(Kind.CANCEL, number)))

    async def close(self) -> None:
        """Close the connection; asks under way fail as `unavailable`."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _connected(self) -> asyncio.StreamWriter:
        if self._writer is not None and not self._writer.is_closing():
            return self._writer
        async with self._connecting:
            if self._writer is not None and not self._writer.is_closing():
                return self._writer
            try:
                reader, writer = await asyncio.open_unix_connection(self._path)
            except OSError as error:
                raise _gone() from error
            writer.write(wire.hello())
            self._writer = writer
            self._reading = asyncio.create_task(self._read(reader, writer))
            return writer

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        decoder = wire.Decoder()
        greeted = False
        try:
            while data := await reader.read(_READ_BYTES):
                for frame in decoder.feed(data):
                    if not greeted:
                        wire.check_hello(frame)
                        greeted = True
                    elif (waiting := self._waiting.get(frame.id)) is not None:
                        waiting.put_nowait(frame)
        except (ConnectionError, WireBroken):
            pass  # all that waits is told below
        finally:
            writer.close()
            if self._writer is writer:
                self._writer = None
            for waiting in self._waiting.values():
                waiting.put_nowait(Frame(Kind.FAIL, 0, _gone().body()))


def ask_once(path: Path, op: str, *, tenant: str = "", seconds: float = 5.0, **body: Any) -> dict[str, Any]:
    """One blocking request on a connection of its own (tasks, health checks, purge); raises EngineRefusal."""
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
            raise _gone() from error


def _first_answer(link: socket.socket, until: float) -> dict[str, Any]:
    decoder = wire.Decoder()
    while True:
        link.settimeout(max(until - time.monotonic(), 0.001))
        data = link.recv(_READ_BYTES)
        if not data:
            raise _gone()
        for frame in decoder.feed(data):
            if frame.kind is Kind.FAIL:
                raise _refusal(frame.body)
            if frame.kind is Kind.DONE:
                return dict(frame.body)
