"""Django's ASGI handler with a streamed request body: nothing of an upload is ever written to a temporary file."""

from __future__ import annotations

import asyncio
import io
import queue
from typing import Any, cast

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.core.handlers.asgi import ASGIHandler

DEPTH = 16  # chunks in flight between the server and the view, about 1 MiB with uvicorn's 64 KiB reads


class BodyGone(OSError):
    """The client left before the body was complete."""


class BodyPipe(io.RawIOBase):
    """A readable file that a view's thread reads while the event loop fills it; memory is bounded by DEPTH chunks."""

    def __init__(self) -> None:
        self._chunks: queue.Queue[bytes | None] = queue.Queue()
        self._room = asyncio.Semaphore(DEPTH)
        self._loop = asyncio.get_running_loop()
        self._rest = b""
        self._ended = False
        self._abandoned = False
        self.aborted = False

    async def fill(self, chunk: bytes) -> None:
        """Add a chunk, waiting for room; after the reader is gone, drop it."""
        await self._room.acquire()
        if self._abandoned:
            self._room.release()
        else:
            self._chunks.put(chunk)

    def finish(self, *, aborted: bool = False) -> None:
        """No more chunks follow."""
        self.aborted = aborted
        self._chunks.put(None)

    def readable(self) -> bool:
        """Always."""
        return True

    def read(self, size: int = -1) -> bytes:
        """`size` bytes, fewer only at the body's end: Django takes a short read for the end and would cut the body.

        Negative: all of it, at most DATA_UPLOAD_MAX_MEMORY_SIZE (RequestDataTooBig). Raises BodyGone when the client
        left.
        """
        most = size if size >= 0 else (settings.DATA_UPLOAD_MAX_MEMORY_SIZE or 0) + 1
        parts, wanted = [], most
        while wanted > 0 and self._more():
            piece, self._rest = self._rest[:wanted], self._rest[wanted:]
            parts.append(piece)
            wanted -= len(piece)
        if size < 0 and wanted == 0:
            raise RequestDataTooBig("The body is larger than DATA_UPLOAD_MAX_MEMORY_SIZE.")
        return b"".join(parts)

    def _more(self) -> bool:
        while not self._rest and not self._ended:
            chunk = self._chunks.get()
            if chunk is None:
                self._ended = True
                if self.aborted:
                    raise BodyGone("The client left before the upload was complete.")
            else:
                self._rest = chunk
                self._loop.call_soon_threadsafe(self._room.release)
        return bool(self._rest)

    def close(self) -> None:
        """The view is done: the rest of the body is dropped as it comes; a thread that still reads gets BodyGone."""
        if not self._abandoned:
            self._abandoned = True
            self.finish(aborted=True)
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._room.release)
        super().close()


class StreamingHandler(ASGIHandler):
    """Reads the body while the view runs instead of before it."""

    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        """One request: a pump feeds the pipe; Django's own disconnect watch starts after the body's end."""
        pipe = BodyPipe()
        pump = asyncio.create_task(_pump(receive, pipe))

        async def after_body() -> Any:
            gone = await asyncio.shield(pump)
            return gone or await receive()

        try:
            await super().handle(scope, _Receive(after_body, pipe), send)
        finally:
            pipe.close()
            pump.cancel()

    async def read_body(self, receive: Any) -> Any:
        """Hand the pipe to the request in place of a spooled file."""
        return cast(_Receive, receive).pipe


class _Receive:
    """Django's view of `receive`, which also carries the pipe to read_body."""

    def __init__(self, receive: Any, pipe: BodyPipe) -> None:
        self._receive = receive
        self.pipe = pipe

    async def __call__(self) -> Any:
        return await self._receive()


async def _pump(receive: Any, pipe: BodyPipe) -> Any:
    """Move the body into the pipe; returns the disconnect message if the client left early."""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            pipe.finish(aborted=True)
            return message
        body = message.get("body", b"")
        if body:
            await pipe.fill(body)
        if not message.get("more_body", False):
            pipe.finish()
            return None
