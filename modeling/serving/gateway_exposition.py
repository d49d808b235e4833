"""The operators' port: GET /metrics in Prometheus' format, from the gateway's counters and the engines' answers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from django.conf import settings
from django.db import Error as DatabaseFailure
from django.db.models import Count

from modeling.models.batches import Batch
from modeling.models.jobs import Job
from modeling.serving.engines import Engines
from modeling.serving.gateway_auth import in_database
from modeling.serving.gateway_metrics import State

log = logging.getLogger("cloister.gateway")

ENGINE_SECONDS = 1.0
REQUEST_SECONDS = 5.0
_MAX_HEAD_BYTES = 16 * 1024


async def work_waiting() -> dict[str, dict[str, int]]:
    """How many training jobs and batch files are open, by state; {} where this process has no operator role."""
    if not settings.HAS_OPERATOR:
        return {}
    try:
        return await in_database(_work_waiting)
    except DatabaseFailure as error:
        log.warning("metrics without jobs (%s)", type(error).__name__)
        return {}


def _work_waiting() -> dict[str, dict[str, int]]:
    return {"jobs": _by_state(Job), "batch_files": _by_state(Batch)}


def _by_state(model: type[Job] | type[Batch]) -> dict[str, int]:
    rows = model.objects.everywhere().filter(state__in=model.OPEN).values_list("state").annotate(Count("id"))
    return dict.fromkeys(map(str, model.OPEN), 0) | dict(rows.order_by("state"))


class MetricsPort:
    """A small HTTP server on an address of its own, in the gateway's event loop."""

    def __init__(self, host: str, port: int, engines: Engines, state: Callable[[], Awaitable[State]]) -> None:
        self._host, self._port = host, port
        self._engines = engines
        self._state = state
        self._one = asyncio.Lock()

    async def run(self) -> None:
        """Serve until cancelled; with the port taken, say so and let the gateway do without."""
        try:
            server = await asyncio.start_server(self._serve, self._host, self._port, limit=_MAX_HEAD_BYTES)
        except OSError as error:
            log.warning(
                "no metrics from this process: %s:%d cannot be listened on (%s). "
                "Another gateway has it? Give each its own METRICS_PORT.",
                self._host,
                self._port,
                error.strerror or type(error).__name__,
            )
            return
        log.info("metrics on http://%s:%d/metrics", self._host, self._port)
        async with server:
            await server.serve_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request, one answer, and the end of the connection."""
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                status, kind, body = await self._answer(head)
                writer.write(
                    f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n"
                    "cache-control: no-store\r\nconnection: close\r\n\r\n".encode()
                    + body
                )
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            log.debug("a scrape was broken off")
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, head: str) -> tuple[str, str, bytes]:
        method, path = [*head.split("\r\n", 1)[0].split(" "), "", ""][:2]
        if method != "GET" or path.partition("?")[0] != "/metrics":
            return "404 Not Found", "text/plain; charset=utf-8", b"Ask for GET /metrics.\n"
        kind, body = await self.render()
        return "200 OK", kind, body

    async def render(self) -> tuple[str, bytes]:
        """Content type and exposition; the engines get a moment to answer, the text is written in a side thread."""
        # only where the port is on: the library costs the gateway memory
        from modeling.serving import metric_families

        async with self._one:
            engines = await self._engines.snapshots(ENGINE_SECONDS)
            state = await self._state()
            return metric_families.CONTENT_TYPE, await asyncio.to_thread(
                metric_families.render, state, engines
            )
