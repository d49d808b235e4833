"""Answers that are made while they are sent: a file of chunks, and a zip archive that never lies anywhere whole."""

from __future__ import annotations

import zipfile
from collections.abc import AsyncIterator, Iterable, Iterator

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, StreamingHttpResponse
from django.utils.encoding import iri_to_uri

_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the same content gives the same archive


def attachment(
    request: HttpRequest, chunks: Iterator[bytes], *, filename: str, content_type: str
) -> StreamingHttpResponse:
    """A download made of chunks; each is drawn in a thread where the server is asynchronous."""
    body = _off_loop(chunks) if isinstance(request, ASGIRequest) else chunks
    response = StreamingHttpResponse(body, content_type=content_type)
    response["Content-Disposition"] = f"attachment; filename*=UTF-8''{iri_to_uri(_safe(filename))}"
    response["X-Content-Type-Options"] = "nosniff"
    return response


def zipped(folder: str, files: Iterable[tuple[str, Iterable[bytes]]]) -> Iterator[bytes]:
    """A zip archive of (path, blocks) under one folder, block by block; stored, since weights do not compress."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]
        for path, blocks in files:
            entry = zipfile.ZipInfo(f"{folder}/{path}", _LONG_AGO)
            entry.external_attr = 0o644 << 16
            with archive.open(entry, "w", force_zip64=True) as place:
                for block in blocks:
                    place.write(block)
                    yield from sink.drained()
            yield from sink.drained()
    yield from sink.drained()


class _Sink:
    """A file that can only be written to and is emptied by whoever sends it."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        """Keep the bytes until they are drained."""
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def drained(self) -> Iterator[bytes]:
        """What was written since the last call, if anything."""
        if self._parts:
            yield b"".join(self._parts)
            self._parts.clear()


def _safe(name: str) -> str:
    return "".join(mark if mark.isalnum() or mark in "._-" else "_" for mark in name)


async def _off_loop(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    def draw() -> bytes:
        return next(chunks, b"")

    while chunk := await sync_to_async(draw)():
        yield chunk
