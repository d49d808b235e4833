"""Speaks ASGI to the gateway: a lifespan, whole requests through httpx, and clients that leave in the middle."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from asgiref.sync import sync_to_async
from django.utils import timezone

from modeling.core import artifacts
from modeling.core.types import Tensors
from modeling.models.datasets import File
from modeling.models.jobs import Job
from modeling.models.versions import ModelVersion, short_id
from modeling.serving.gateway import application
from tenants import vault
from tenants.models import Tenant
from tenants.scope import scope


@asynccontextmanager
async def lifespan() -> AsyncIterator[None]:
    """The server's start and stop around the block."""
    inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    outbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    running = asyncio.create_task(application({"type": "lifespan"}, inbox.get, outbox.put))
    await inbox.put({"type": "lifespan.startup"})
    assert (await outbox.get())["type"] == "lifespan.startup.complete"
    try:
        yield
    finally:
        await inbox.put({"type": "lifespan.shutdown"})
        assert (await outbox.get())["type"] == "lifespan.shutdown.complete"
        await running


def client(key: str) -> httpx.AsyncClient:
    """An HTTP client with a key."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=application),
        base_url="http://testserver",
        headers={"authorization": f"Bearer {key}"} if key else {},
        timeout=60,
    )


async def leave_after(
    key: str, path: str, body: dict[str, Any], *, events: int, **more: str
) -> list[dict[str, Any]]:
    """POST, read so many body messages, close the connection; everything that was sent until the app ended."""
    content = json.dumps(body).encode()
    sent: list[dict[str, Any]] = []
    leaving = asyncio.Event()
    requests = [{"type": "http.request", "body": content, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if requests:
            return requests.pop()
        await leaving.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if leaving.is_set():
            return
        sent.append(message)
        if len(sent) > events:
            leaving.set()

    headers = [(b"authorization", f"Bearer {key}".encode()), (b"content-type", b"application/json")]
    headers += [(name.encode(), value.encode()) for name, value in more.items()]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
    if not events:
        asyncio.get_running_loop().call_later(0.3, leaving.set)
    await application(scope, receive, send)
    return sent


class Stream:
    """A streamed answer, read event by event on bare ASGI."""

    def __init__(self, key: str, path: str, body: dict[str, Any], **headers: str) -> None:
        self._inbox = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]
        self._outbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        given = {"authorization": f"Bearer {key}", "content-type": "application/json", **headers}
        pairs = [(name.encode(), value.encode()) for name, value in given.items()]
        scope = {"type": "http", "method": "POST", "path": path, "headers": pairs}
        self._running = asyncio.create_task(application(scope, self._receive, self._outbox.put))
        self._left = asyncio.Event()

    async def _receive(self) -> dict[str, Any]:
        if self._inbox:
            return self._inbox.pop()
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def events(self, count: int) -> list[str]:
        """The next so many events, without the start of the answer."""
        found: list[str] = []
        while len(found) < count:
            message = await self._outbox.get()
            if message["type"] == "http.response.body" and message["body"]:
                found.append(message["body"].decode().removeprefix("data: ").strip())
        return found

    async def rest(self) -> list[str]:
        """All events until the answer's end."""
        await self._running
        return await self.events(sum(bool(one.get("body")) for one in list(self._outbox._queue)))  # type: ignore[attr-defined]

    def leave(self) -> None:
        """Close the connection."""
        self._left.set()


def make_version(
    tenant: Tenant, tensors: Tensors, config: dict[str, Any], *, suffix: str = ""
) -> ModelVersion:
    """A finished job's version, its artefact in the vault."""
    with scope(tenant):
        stored = vault.put(tenant, "artifact", artifacts.dump(tensors, config))
        file = File.objects.of(tenant).create(name="rows.csv", purpose="fine-tune", size_bytes=1)
        job = Job.objects.of(tenant).create(
            file=file, task=config["task"], base=config["base"], state="succeeded", finished_at=timezone.now()
        )
        short = short_id()
        return ModelVersion.objects.of(tenant).create(
            name=f"ft:{config['base']}:{tenant.slug}:{suffix}:{short}",
            short_id=short,
            job=job,
            base=config["base"],
            task=config["task"],
            method=config["method"],
            config=config,
            object=stored,
        )


async def in_thread(work: Any, *arguments: Any, **named: Any) -> Any:
    """Blocking ORM work from an async test."""
    return await sync_to_async(work)(*arguments, **named)
