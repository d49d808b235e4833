"""One HTTP exchange on bare ASGI: bounded bodies, JSON and event-stream answers, the headers of OpenAI's API."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from saas.lib.errors import Refusal

MAX_BODY_BYTES = 8 * 1024 * 1024

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class ClientGone(Exception):
    """The client closed the connection: nobody reads an answer."""


class Exchange:
    """A request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._started = time.perf_counter()
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self._headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        self.request_id = f"req_{secrets.token_hex(16)}"
        self.extra: dict[str, str] = {}  # headers of every answer, such as the rate limit's
        self.is_begun = False

    def header(self, name: str) -> str:
        """A request header, "" when absent."""
        return str(self._headers.get(name, ""))

    async def body(self) -> bytes:
        """The whole body; raises Refusal 413 and 415, ClientGone."""
        kind = self.header("content-type").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Refusal("Send the body as application/json.", status=415, code="unsupported_media_type")
        announced = self.header("content-length")
        if announced.isdecimal() and int(announced) > MAX_BODY_BYTES:
            raise _too_large()
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > MAX_BODY_BYTES:
                raise _too_large()
            chunks.append(chunk)
            if not message.get("more_body", False):
                return b"".join(chunks)

    async def gone(self) -> None:
        """Return once the client has left; call after the body was read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def answer(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        """A JSON answer."""
        content = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        given = {"content-type": "application/json", "content-length": str(len(content)), **(headers or {})}
        await self._start(status, given)
        await self._send({"type": "http.response.body", "body": content})

    async def refuse(self, refusal: Refusal) -> None:
        """An error answer, or an error event when a stream is already under way."""
        if self.is_begun:
            await self.event(refusal.body())
            await self._send({"type": "http.response.body", "body": b""})
            return
        await self.answer(
            refusal.status, refusal.body(), {key.lower(): value for key, value in refusal.headers.items()}
        )

    async def begin_stream(self) -> None:
        """Start a server-sent event stream."""
        await self._start(
            200, {"content-type": "text/event-stream; charset=utf-8", "x-accel-buffering": "no"}
        )

    async def event(self, data: Any) -> None:
        """One event with JSON data."""
        text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        await self._send(
            {"type": "http.response.body", "body": f"data: {text}\n\n".encode(), "more_body": True}
        )

    async def end_stream(self) -> None:
        """The end that OpenAI's clients wait for."""
        await self._send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    async def _start(self, status: int, headers: Mapping[str, str]) -> None:
        self.is_begun = True
        given = {
            "x-request-id": self.request_id,
            "openai-processing-ms": str(round((time.perf_counter() - self._started) * 1000)),
            "cache-control": "no-store",
            "x-content-type-options": "nosniff",
            **self.extra,
            **headers,
        }
        pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in given.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": pairs})


def _too_large() -> Refusal:
    return Refusal(f"The body is larger than {MAX_BODY_BYTES >> 20} MiB.", status=413, code="body_too_large")
