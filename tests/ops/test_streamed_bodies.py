"""Streamed bodies: bounded in memory without a declared length, and no thread waits for a body that never ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from django.core.exceptions import RequestDataTooBig

from saas.streaming import BodyGone, BodyPipe, StreamingHandler

CHUNK = b" " * 65_536
CHUNKS = 800  # 52 MB, against 2.5 MB that a body in memory may have
MOST_TAKEN = 5_000_000


class Visit:
    """One POST to the handler as the server would call it, its body sent in chunks without a length."""

    def __init__(self, path: str, **headers: str) -> None:
        self.path = path
        self.headers = {"host": "localhost", **headers}
        self.taken = 0
        self.status = 0

    def make(self, handler: Any) -> int:
        """Send until the answer came; returns its status."""
        asyncio.run(asyncio.wait_for(handler(self._scope(), self._receiver(), self._send), 60))
        return self.status

    def _scope(self) -> dict[str, Any]:
        return {
            "type": "http",
            "http_version": "1.1",
            "method": "POST",
            "path": self.path,
            "raw_path": self.path.encode(),
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "headers": [(name.encode(), value.encode()) for name, value in self.headers.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }

    def _receiver(self) -> Callable[[], Awaitable[dict[str, Any]]]:
        chunks: Iterator[bytes] = iter([CHUNK] * CHUNKS)

        async def receive() -> dict[str, Any]:
            await asyncio.sleep(0)
            chunk = next(chunks, None)
            if chunk is not None:
                self.taken += len(chunk)
                return {"type": "http.request", "body": chunk, "more_body": True}
            await asyncio.sleep(60)
            return {"type": "http.disconnect"}

        return receive

    async def _send(self, message: dict[str, Any]) -> None:
        self.status = message.get("status", self.status)


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/stripe/webhook", {"content-type": "application/json"}),
        (
            "/accounts/login/",
            {"content-type": "application/x-www-form-urlencoded", "cookie": f"csrftoken={'a' * 32}"},
        ),
    ],
)
def test_a_body_without_a_length_is_refused_before_it_fills_the_memory(
    path: str, headers: dict[str, str]
) -> None:
    visit = Visit(path, **headers)
    assert visit.make(StreamingHandler()) == 400
    assert visit.taken < MOST_TAKEN


def test_an_api_body_that_is_too_large_is_refused_as_json(api: Any) -> None:
    visit = Visit(
        "/v1/fine_tuning/jobs",
        **{"content-type": "application/json", "content-length": str(len(CHUNK) * CHUNKS)},
        authorization=f"Bearer {api.key}",
    )
    assert visit.make(StreamingHandler()) == 413
    assert visit.taken < MOST_TAKEN


def test_a_body_under_the_bound_is_read_whole() -> None:
    async def main() -> bytes:
        pipe = BodyPipe()
        for _number in range(3):
            await pipe.fill(b"ab")
        pipe.finish()
        return pipe.read()

    assert asyncio.run(main()) == b"ababab"


def test_a_thread_that_reads_a_closed_body_ends() -> None:
    ended: list[type[Exception]] = []

    def read(pipe: BodyPipe) -> None:
        try:
            pipe.read(10)
        except (BodyGone, RequestDataTooBig) as error:
            ended.append(type(error))

    async def main() -> None:
        pipe = BodyPipe()
        reader = threading.Thread(target=read, args=(pipe,), daemon=True)
        reader.start()
        await asyncio.sleep(0.1)
        pipe.close()
        reader.join(5)

    asyncio.run(main())
    assert ended == [BodyGone]
