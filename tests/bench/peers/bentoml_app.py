"""BentoML with its adaptive batching."""

from __future__ import annotations

from typing import Any

import bentoml

from tests.bench.peers.classifier import MAX_BATCH, chosen


@bentoml.service(workers=1, traffic={"timeout": 60})
class Peer:
    """The classifier as a batchable API, and the route that the clients call."""

    def __init__(self) -> None:
        self.classifier = chosen()

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH, max_latency_ms=60_000, route="/v1/classify")
    def classify(self, inputs: list[str]) -> list[list[list[Any]]]:
        """One batch: BentoML joins the lists of waiting requests."""
        return self.classifier(inputs)
