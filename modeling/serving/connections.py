"""The engine's side of a connection: frames in, one task per request, frames out."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from modeling.serving import wire
from modeling.serving.asks import MAX_DEADLINE_SECONDS, Ask
from modeling.serving.runners import Runners
from modeling.serving.wire import EngineRefusal, Frame, Kind, WireBroken

log = logging.getLogger("cloister.engine")

MAX_IN_FLIGHT = 2048
_READ_BYTES = 256 * 1024


class Hub:
    """What all connections share: the runners and the requests under way."""

    def __init__(self, runners: Runners) -> None:
        self.runners = runners
        self.in_flight: dict[asyncio.Task[None], Ask] = {}
        self.withdrawn: set[asyncio.Task[None]] = set()
        self.connections: set[asyncio.Task[None]] = set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until it closes; what it asked for and nobody hears is cancelled."""
        task = asyncio.current_task()
        if task is not None:
            self.connections.add(task)
            task.add_done_callback(self.connections.discard)
        connection = _Connection(self, writer)
        try:
            await connection.read(reader)
        except WireBroken as error:
            log.warning("closing a connection: %s", error)
        except ConnectionError:
            log.info("a connection broke")
        finally:
            connection.drop()
            writer.close()

    def withdraw(self, ask: Ask) -> None:
        """A purge ends what its tenant (or version) has under way."""
        version = ask.body.get("version")
        for task, other in self.in_flight.items():
            artifact = other.body.get("artifact")
            named = artifact.get("version") if isinstance(artifact, dict) else None
            if other is not ask and other.tenant == ask.tenant and version in (None, named):
                self.withdrawn.add(task)
                task.cancel()

    async def drain(self, seconds: float) -> None:
        """Let requests under way finish, for so long; then cancel them and close the connections."""
        if self.in_flight:
            await asyncio.wait(list(self.in_flight), timeout=seconds)
        tasks = [*self.in_flight, *self.connections]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Connection:
    def __init__(self, hub: Hub, writer: asyncio.StreamWriter) -> None:
        self._hub = hub
        self._writer = writer
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._greeted = False

    async def read(self, reader: asyncio.StreamReader) -> None:
        """Take frames until the other side closes; raises WireBroken."""
        self._writer.write(wire.hello())
        decoder = wire.Decoder()
        while data := await reader.read(_READ_BYTES):
            for frame in decoder.feed(data):
                self._take(frame)

    def drop(self) -> None:
        """Cancel everything asked for on this connection."""
        for task in self._tasks.values():
            task.cancel()

    def _take(self, frame: Frame) -> None:
        if not self._greeted:
            wire.check_hello(frame)
            self._greeted = True
        elif frame.kind is Kind.ASK:
            self._start(frame)
        elif frame.kind is Kind.CANCEL:
            if (task := self._tasks.get(frame.id)) is not None:
                task.cancel()
        else:
            raise WireBroken(f"an engine is not sent {frame.kind.name}")

    def _start(self, frame: Frame) -> None:
        if frame.id in self._tasks:
            raise WireBroken("a request id is in use")
        ask = _parse(frame)
        if ask is None or len(self._hub.in_flight) >= MAX_IN_FLIGHT:
            refusal = EngineRefusal("bad_request", "A request needs op, tenant and deadline_ms.")
            if ask is not None:
                refusal = EngineRefusal(
                    "busy", "The engine is busy. Try again shortly.", retry_after_seconds=1.0
                )
            self._send(Frame(Kind.FAIL, frame.id, refusal.body()))
            return
        task = asyncio.create_task(self._answer(frame.id, ask))
        self._tasks[frame.id] = task
        self._hub.in_flight[task] = ask
        task.add_done_callback(lambda done: self._ended(frame.id, done))

    async def _answer(self, number: int, ask: Ask) -> None:
        async def send(part: dict[str, Any]) -> None:
            self._send(Frame(Kind.PART, number, part))
            await self._writer.drain()

        try:
            async with asyncio.timeout_at(ask.deadline):
                if ask.op == "purge":
                    self._hub.withdraw(ask)
                answer = Frame(Kind.DONE, number, await self._hub.runners.do(ask, send))
        except EngineRefusal as refusal:
            answer = Frame(Kind.FAIL, number, refusal.body())
        except TimeoutError:
            answer = Frame(Kind.FAIL, number, EngineRefusal("deadline", "The request's time ran out.").body())
        self._send(answer)

    def _ended(self, number: int, task: asyncio.Task[None]) -> None:
        del self._tasks[number], self._hub.in_flight[task]
        if task.cancelled():
            if task in self._hub.withdrawn:
                self._hub.withdrawn.discard(task)
                self._send(
                    Frame(Kind.FAIL, number, EngineRefusal("revoked", "The model was withdrawn.").body())
                )
            return
        self._hub.withdrawn.discard(task)
        error = task.exception()
        if error is None or isinstance(error, ConnectionError):
            return
        log.error("a request failed: a bug", exc_info=error)
        self._send(Frame(Kind.FAIL, number, EngineRefusal("internal", "The engine failed.").body()))

    def _send(self, frame: Frame) -> None:
        if not self._writer.is_closing():
            self._writer.write(wire.encode(frame))


def _parse(frame: Frame) -> Ask | None:
    op, tenant, milliseconds = (frame.body.get(name) for name in ("op", "tenant", "deadline_ms"))
    if not isinstance(op, str) or not isinstance(tenant, str):
        return None
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, (int, float)):
        return None
    seconds = min(max(milliseconds / 1000, 0.0), MAX_DEADLINE_SECONDS)
    return Ask(op, tenant, frame.body, asyncio.get_running_loop().time() + seconds)
