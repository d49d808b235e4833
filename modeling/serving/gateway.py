"""The hot routes as a plain ASGI app: no Django handler, no torch; cached keys, limits, the engine, usage."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from django.conf import settings
from django.db import Error as DatabaseFailure

from modeling.serving.engines import Engines
from modeling.serving.gateway_after import Afterwards
from modeling.serving.gateway_auth import Doorkeeper, Revocation
from modeling.serving.gateway_call import Call
from modeling.serving.gateway_calls import CALLS
from modeling.serving.gateway_exposition import MetricsPort, work_waiting
from modeling.serving.gateway_fields import Fields, parse
from modeling.serving.gateway_http import ClientGone, Exchange, Receive, Scope, Send
from modeling.serving.gateway_idempotency import once
from modeling.serving.gateway_limits import Limiter
from modeling.serving.gateway_metrics import METRICS, OTHER, ROUTES, State
from modeling.serving.gateway_open import OpenRequests, Underway, no_database
from modeling.serving.gateway_usage import UsageBatches
from modeling.serving.wire import EngineRefusal
from saas.lib.errors import NotFound, Refusal
from tenants.access import bearer

log = logging.getLogger("cloister.gateway")

Value = TypeVar("Value")
PATHS = frozenset(CALLS)
LARGE_BODY_BYTES = 256 << 10
PURGE_SECONDS = 5.0
FLUSH_AT_STOP_SECONDS = 10.0
STOP_SECONDS = 2.0


class Gateway:
    """The parts that live as long as one event loop."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._engine = Engines.from_settings()
        self._doors = Doorkeeper(settings.REDIS_URL, on_void=self._void)
        self._open = OpenRequests(self._doors)
        self._parsing = asyncio.Lock()
        self._missed = float("-inf")  # when requests last found no database
        self._limiter = Limiter(settings.REDIS_URL)
        self._usage = UsageBatches()
        self._afterwards = Afterwards(self._engine)
        self._tasks: set[asyncio.Task[None]] = set()
        self._keep(self._doors.link.run())
        self._keep(self._open.watch())
        self._flushing = {self._keep(self._usage.run()), self._keep(self._afterwards.run())}
        if settings.METRICS_PORT:
            port = MetricsPort(settings.METRICS_HOST, settings.METRICS_PORT, self._engine, self._state)
            self._keep(port.run())

    def _keep(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a part of the gateway ended: a bug", exc_info=task.exception())

    async def stop(self) -> None:
        """Write the last usage and log entries, and close all connections."""
        self._usage.close()
        self._afterwards.close()
        await asyncio.wait(self._flushing, timeout=FLUSH_AT_STOP_SECONDS)
        self._doors.link.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_SECONDS)
        await self._engine.close()
        await self._limiter.close()

    def _void(self, message: Revocation) -> None:
        self._keep(self._end(message))

    async def _end(self, message: Revocation) -> None:
        """What is revoked ends at once, with the reason, and then leaves the engine's memory too."""
        await self._open.void(message)
        if message.kind == "tenant":
            await self._purge(message.tenant, None)
        elif message.kind == "version":
            await self._purge(message.tenant, _version_id(message.id))

    async def _purge(self, tenant: str, version: str | None) -> None:
        try:
            await self._engine.ask("purge", tenant=tenant, seconds=PURGE_SECONDS, version=version)
        except EngineRefusal as refusal:
            log.warning("the engine was not told to forget a model (%s)", refusal.code)

    async def _state(self) -> State:
        """What a scrape is told, copied."""
        work = await work_waiting()
        return State(METRICS.copy(), self._usage.waiting, self._doors.link.up, work)

    def observe(self, exchange: Exchange) -> None:
        """Count a request that has ended, for the operators and for the pages of its model."""
        seen, route = exchange.seen, ROUTES.get(exchange.path, OTHER)
        seconds = time.perf_counter() - seen.started
        METRICS.observe(route, seen, seconds)
        if seen.tenant is not None:
            self._usage.note(seen.tenant, route, seen, seconds)

    def miss_database(self, error: DatabaseFailure) -> None:
        """Say once a second that requests are refused for want of the database."""
        if self.loop.time() - self._missed >= 1:
            self._missed = self.loop.time()
            log.error("no database for requests (%s)", type(error).__name__)

    async def serve(self, exchange: Exchange) -> None:
        """Answer one request; raises Refusal, ClientGone."""
        if exchange.path not in CALLS:
            raise NotFound("There is no such call.")
        if exchange.method != "POST":
            raise Refusal(
                "This call is made with POST.",
                status=405,
                code="method_not_allowed",
                headers={"allow": "POST"},
            )
        key = bearer(exchange.header("authorization"))
        admission = await self._doors.admit(key, "predict")
        self._usage.require_room()
        with Underway(self._open, exchange, admission, key) as underway:
            fields = await self._parsed(await exchange.body(underway.take))
            underway.listen()
            call = Call(
                exchange, admission, self._engine, self._doors, self._limiter, self._usage, self._afterwards
            )
            name = exchange.header("idempotency-key")
            if name and not fields.has("stream"):
                body = await self._beside(exchange.body_bytes, fields.canonical)
                await once(call, name, body, lambda: CALLS[exchange.path](call, fields))
            else:
                await CALLS[exchange.path](call, fields)

    async def _parsed(self, raw: bytes) -> Fields:
        """The body's fields."""
        return await self._beside(len(raw), lambda: parse(raw))

    async def _beside(self, size: int, work: Callable[[], Value]) -> Value:
        """Work on a body; on large ones one after another and in a thread, since that takes time and memory."""
        if size <= LARGE_BODY_BYTES:
            return work()
        async with self._parsing:
            return await asyncio.to_thread(work)


def _version_id(text: str) -> str | None:
    """A version's id as the engine knows it; None (all of the tenant) for any other name of it."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return None


_gateway: Gateway | None = None


def _current() -> Gateway:
    """This event loop's gateway, made with its first request where the server has no lifespan."""
    global _gateway
    if _gateway is None or _gateway.loop is not asyncio.get_running_loop():
        _gateway = Gateway()
    return _gateway


async def _lifespan(receive: Receive, send: Send) -> None:
    global _gateway
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            _current()
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            gateway, _gateway = _gateway, None
            if gateway is not None:
                await gateway.stop()
            await send({"type": "lifespan.shutdown.complete"})
            return


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """ASGI: the hot routes, and the server's start and stop."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    exchange, gateway = Exchange(scope, receive, send), _current()
    try:
        try:
            await gateway.serve(exchange)
        except Refusal as refusal:
            await exchange.refuse(refusal)
        except DatabaseFailure as error:
            gateway.miss_database(error)
            await exchange.refuse(no_database())
    except ClientGone:
        exchange.seen.status = 0
        log.debug("request %s: the client left", exchange.request_id)
    finally:
        gateway.observe(exchange)
