"""One HTTP exchange on bare ASGI: bounded bodies, JSON and event-stream answers, the headers of OpenAI's API."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from modeling.serving.gateway_metrics import Seen
from saas.lib.errors import Refusal

MAX_BODY_BYTES = 8 * 1024 * 1024
BODY_SECONDS = 60.0
LAST_WORD_SECONDS = 1.0
TIMEOUT_HEADER = "x-request-timeout-ms"
_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)

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
        # uvicorn's, where its own `send` is given: ASGI itself tells of a client that left some turns later.
        self._transport = getattr(getattr(send, "__self__", None), "transport", None)
        self.seen = Seen()
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self._headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        self.request_id = f"req_{secrets.token_hex(16)}"
        self.billed_id = (
            ""  # where it is not the request's: a repeat under an Idempotency-Key has the first one's
        )
        self.extra: dict[str, str] = {}  # headers of every answer, such as the rate limit's
        self.version = ""  # of the model that answers, once known
        self.body_bytes = 0
        self.may_keep = False  # whether the tenant lets answers be kept
        self.keep: Callable[[bytes], Awaitable[None]] | None = None  # called with an answer before it is sent
        self.is_begun = self._is_stream = False

    def header(self, name: str) -> str:
        """A request header, "" when absent."""
        return str(self._headers.get(name, ""))

    def seconds(self, most: float) -> float:
        """How long the work may still take: what the client gives by x-request-timeout-ms, at most the route's own.

        Raises Refusal 400, and 504 when nothing is left.
        """
        given = self.header(TIMEOUT_HEADER)
        if not given:
            return most
        if not given.isdecimal() or len(given) > 9 or int(given) < 1:
            raise Refusal(
                f"{TIMEOUT_HEADER} must be a whole number of milliseconds.",
                code="invalid_value",
                param=TIMEOUT_HEADER,
            )
        left = int(given) / 1000 - (time.perf_counter() - self.seen.started)
        if left <= 0:
            raise Refusal(
                "The answer did not come in time. Try again.", status=504, code="timeout", kind="server_error"
            )
        return min(most, left)

    async def body(self, take: Callable[[int], None]) -> bytes:
        """The whole body; `take` hears of its bytes as they come. Raises Refusal 408, 413 and 415, ClientGone."""
        kind = self.header("content-type").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Refusal("Send the body as application/json.", status=415, code="unsupported_media_type")
        announced = self.header("content-length")
        if announced.isdecimal() and int(announced) > MAX_BODY_BYTES:
            raise _too_large()
        chunks: list[bytes] = []
        if await self._read(chunks, take):
            return chunks[0]
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while not await self._read(chunks, take):
                    pass
        except TimeoutError as error:
            raise Refusal("The body took too long to arrive.", status=408, code="body_too_slow") from error
        return b"".join(chunks)

    async def _read(self, chunks: list[bytes], take: Callable[[int], None]) -> bool:
        """One piece more; whether it was the last."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        self.body_bytes += len(chunk)
        if self.body_bytes > MAX_BODY_BYTES:
            raise _too_large()
        take(len(chunk))
        chunks.append(chunk)
        return not message.get("more_body", False)

    async def gone(self) -> None:
        """Return once the client has left; call after the body was read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def answer(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        """A JSON answer."""
        content = _JSON.encode(body).encode()
        if status == 200 and self.keep is not None and self.may_keep:
            await self.keep(content)
        await self.answer_with(status, content, headers)

    async def answer_with(
        self, status: int, content: bytes, headers: Mapping[str, str] | None = None
    ) -> None:
        """An answer whose JSON is made already."""
        given = {"content-type": "application/json", "content-length": str(len(content)), **(headers or {})}
        await self._start(status, given)
        await self._send({"type": "http.response.body", "body": content})

    async def refuse(self, refusal: Refusal) -> None:
        """An error answer, or an error event when a stream is already under way; raises ClientGone if none can be."""
        if not self.is_begun:
            headers = {key.lower(): value for key, value in refusal.headers.items()}
            await self.answer(refusal.status, refusal.body(), headers)
            return
        self.seen.status = refusal.status
        if not self._is_stream:
            raise ClientGone
        try:
            async with asyncio.timeout(LAST_WORD_SECONDS):  # a client that does not read is not waited for
                await self.event(refusal.body())
                await self._send({"type": "http.response.body", "body": b""})
        except TimeoutError as error:
            raise ClientGone from error

    async def begin_stream(self) -> None:
        """Start a server-sent event stream; its first token is there."""
        self.seen.first_token = time.perf_counter() - self.seen.started
        self._is_stream = True
        await self._start(
            200, {"content-type": "text/event-stream; charset=utf-8", "x-accel-buffering": "no"}
        )

    async def event(self, data: Any) -> None:
        """One event with JSON data; raises ClientGone when it was not sent, so that nobody pays for it."""
        text = _JSON.encode(data)
        await self._send(
            {"type": "http.response.body", "body": f"data: {text}\n\n".encode(), "more_body": True}
        )
        if self._transport is not None and self._transport.is_closing():
            await asyncio.sleep(LAST_WORD_SECONDS)  # until the server says so too, which ends this call
            raise ClientGone

    async def end_stream(self) -> None:
        """The end that OpenAI's clients wait for."""
        await self._send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    async def _start(self, status: int, headers: Mapping[str, str]) -> None:
        self.is_begun = True
        self.seen.status = status
        given = {
            "x-request-id": self.request_id,
            "openai-processing-ms": str(round((time.perf_counter() - self.seen.started) * 1000)),
            "cache-control": "no-store",
            "x-content-type-options": "nosniff",
            **self.extra,
            **headers,
        }
        pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in given.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": pairs})


def _too_large() -> Refusal:
    return Refusal(f"The body is larger than {MAX_BODY_BYTES >> 20} MiB.", status=413, code="body_too_large")
