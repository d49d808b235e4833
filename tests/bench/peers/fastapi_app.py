"""FastAPI without batching: a function of its thread pool per request."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from tests.bench.peers.classifier import chosen

app = FastAPI()
classifier = chosen()


class Body(BaseModel):
    """What a client sends."""

    model: str
    inputs: list[str]


@app.post("/v1/classify")
def classify(body: Body) -> dict[str, Any]:
    """One text."""
    return {"results": classifier(body.inputs)}
