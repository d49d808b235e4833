"""The hot routes as a plain ASGI app: no Django handler, no torch; cached keys, limits, the engine, usage."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Coroutine
from typing import Any

from django.conf import settings

from modeling.serving.client import EngineClient
from modeling.serving.gateway_auth import Doorkeeper, Revocation
from modeling.serving.gateway_call import Call
from modeling.serving.gateway_calls import CALLS
from modeling.serving.gateway_fields import parse
from modeling.serving.gateway_http import ClientGone, Exchange, Receive, Scope, Send
from modeling.serving.gateway_limits import Limiter
from modeling.serving.gateway_usage import UsageBatches
from modeling.serving.wire import EngineRefusal
from saas.lib.errors import NotFound, Refusal
from tenants.access import bearer

log = logging.getLogger("cloister.gateway")

PATHS = frozenset(CALLS)
PURGE_SECONDS = 5.0
FLUSH_AT_STOP_SECONDS = 10.0
STOP_SECONDS = 2.0


class Gateway:
    """The parts that live as long as one event loop."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._engine = EngineClient(settings.ENGINE_SOCKET)
        self._doors = Doorkeeper(settings.REDIS_URL, on_void=self._void)
        self._limiter = Limiter(settings.REDIS_URL)
        self._usage = UsageBatches()
        self._tasks: set[asyncio.Task[None]] = set()
        self._keep(self._doors.link.run())
        self._flushing = self._keep(self._usage.run())

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
        """Write the last usage and close all connections."""
        self._usage.close()
        await asyncio.wait({self._flushing}, timeout=FLUSH_AT_STOP_SECONDS)
        self._doors.link.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_SECONDS)
        await self._engine.close()
        await self._limiter.close()

    def _void(self, message: Revocation) -> None:
        """A revoked version, or all of a suspended tenant, leaves the engine's memory too."""
        if message.kind == "tenant":
            self._keep(self._purge(message.tenant, None))
        elif message.kind == "version":
            self._keep(self._purge(message.tenant, _version_id(message.id)))

    async def _purge(self, tenant: str, version: str | None) -> None:
        try:
            await self._engine.ask("purge", tenant=tenant, seconds=PURGE_SECONDS, version=version)
        except EngineRefusal as refusal:
            log.warning("the engine was not told to forget a model (%s)", refusal.code)

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
        admission = await self._doors.admit(bearer(exchange.header("authorization")), "predict")
        fields = parse(await exchange.body())
        call = Call(exchange, admission, self._engine, self._doors, self._limiter, self._usage)
        await _until_gone(exchange, CALLS[exchange.path](call, fields))


async def _until_gone(exchange: Exchange, answering: Any) -> None:
    """Run the call while the client listens; when it leaves, the call is cancelled, and with it the engine's work."""
    work = asyncio.ensure_future(answering)
    gone = asyncio.ensure_future(exchange.gone())
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
        if not work.done():
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
    if work.cancelled():
        raise ClientGone
    error = work.exception()
    if error is None:
        return
    if isinstance(error, (Refusal, ClientGone)):
        raise error
    log.error("request %s failed: a bug", exchange.request_id, exc_info=error)
    raise Refusal("The server failed to answer.", status=500, code="internal_error", kind="server_error")


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
    exchange = Exchange(scope, receive, send)
    try:
        await _current().serve(exchange)
    except Refusal as refusal:
        await exchange.refuse(refusal)
    except ClientGone:
        log.debug("request %s: the client left", exchange.request_id)
