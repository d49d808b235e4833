"""Streamed bodies: whole however they are cut, bounded in memory, and no thread waits for one that never ends."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import pytest
from django.core.exceptions import RequestDataTooBig

from saas.streaming import BodyGone, BodyPipe, StreamingHandler

JOBS = "/v1/fine_tuning/jobs"
FLOOD = [b" " * 65_536] * 100  # 6.5 MB, against 2.5 MB that a body in memory may have


class Visit:
    """One POST to the handler as the server would call it, its body sent in these chunks."""

    def __init__(self, path: str, body: Sequence[bytes], **headers: str) -> None:
        self.path = path
        self.body = body
        self.headers = {"host": "localhost", **headers}
        self.status = 0

    def make(self) -> int:
        """Send until the answer came; returns its status."""
        asyncio.run(asyncio.wait_for(StreamingHandler()(self._scope(), self._receiver(), self._send), 60))
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
        chunks: Iterator[bytes] = iter(self.body)
        ends = iter([{"type": "http.request", "body": b"", "more_body": False}])

        async def receive() -> dict[str, Any]:
            await asyncio.sleep(0)
            chunk = next(chunks, None)
            if chunk is not None:
                return {"type": "http.request", "body": chunk, "more_body": True}
            if (end := next(ends, None)) is not None:
                return end
            await asyncio.sleep(60)
            return {"type": "http.disconnect"}

        return receive

    async def _send(self, message: dict[str, Any]) -> None:
        self.status = message.get("status", self.status)


def test_a_body_in_several_chunks_is_whole(api: Any) -> None:
    raw = json.dumps({"training_file": "file-nobody-has", "labels": ["x" * 190] * 900}).encode()
    headers = {"content-type": "application/json", "content-length": str(len(raw))}
    for chunks in ([raw[:10], raw[10:]], [raw[:65_536], raw[65_536:131_072], raw[131_072:]]):
        assert Visit(JOBS, chunks, **headers, authorization=f"Bearer {api.key}").make() == 404


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
def test_a_flood_without_a_length_is_refused(
    path: str, headers: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    assert Visit(path, FLOOD, **headers).make() == 400
    assert "RequestDataTooBig" in {record.name.rpartition(".")[2] for record in caplog.records}


def test_a_flood_into_the_api_is_refused_as_json(api: Any) -> None:
    length = str(sum(map(len, FLOOD)))
    headers = {"content-type": "application/json", "content-length": length}
    assert Visit(JOBS, FLOOD, **headers, authorization=f"Bearer {api.key}").make() == 413


def test_a_read_is_as_long_as_asked_for() -> None:
    async def main() -> list[bytes]:
        pipe = BodyPipe()
        for _number in range(3):
            await pipe.fill(b"ab")
        pipe.finish()
        return [pipe.read(3), pipe.read(0), pipe.read(), pipe.read(5)]

    assert asyncio.run(main()) == [b"aba", b"", b"bab", b""]


def test_reading_all_has_a_bound(settings: Any) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 5

    async def main() -> bytes:
        pipe = BodyPipe()
        for _number in range(3):
            await pipe.fill(b"ab")
        pipe.finish()
        return pipe.read()

    with pytest.raises(RequestDataTooBig):
        asyncio.run(main())


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
