"""Ray Serve with @serve.batch."""

from __future__ import annotations

import os
import signal
from typing import Any

from ray import serve
from starlette.requests import Request

from tests.bench.peers.classifier import MAX_BATCH, chosen, text_of


@serve.deployment(num_replicas=1, max_ongoing_requests=256)
class Peer:
    """The classifier as one replica."""

    def __init__(self) -> None:
        self.classifier = chosen()

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=0.005)
    async def batched(self, texts: list[str]) -> list[list[list[Any]]]:
        """One batch."""
        return self.classifier(texts)

    async def __call__(self, request: Request) -> dict[str, Any]:
        """One request."""
        return {"results": [await self.batched(text_of(await request.body()))]}


if __name__ == "__main__":
    serve.start(http_options={"host": "127.0.0.1", "port": int(os.environ["PEER_PORT"])})
    serve.run(Peer.bind(), route_prefix="/v1/classify")
    signal.pause()
