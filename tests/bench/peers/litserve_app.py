"""LitServe with its batching: predict takes a list, the server splits the answers."""

from __future__ import annotations

import os
from typing import Any

import litserve

from tests.bench.peers.classifier import MAX_BATCH, chosen, text_of


class Api(litserve.LitAPI):
    """The classifier behind LitServe's hooks."""

    def setup(self, device: str) -> None:
        """Load the weights."""
        self.classifier = chosen()

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # LitServe reads a type here as a schema
        """The text of a request."""
        return text_of(request)

    def predict(self, inputs: list[str]) -> list[list[list[Any]]]:
        """One batch."""
        return self.classifier(inputs)

    def encode_response(self, output: list[list[Any]]) -> dict[str, Any]:
        """The answer's body."""
        return {"results": [output]}


if __name__ == "__main__":
    api = Api(max_batch_size=MAX_BATCH, batch_timeout=0.005, api_path="/v1/classify")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1", port=int(os.environ["PEER_PORT"]), generate_client_file=False, log_level="warning"
    )
