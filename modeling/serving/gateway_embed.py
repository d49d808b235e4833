"""POST /v1/embeddings in OpenAI's shape."""

from __future__ import annotations

import base64
import sys
from array import array
from typing import Any

from modeling.serving.gateway_after import after
from modeling.serving.gateway_bodies import Embed
from modeling.serving.gateway_call import Call
from modeling.serving.gateway_fields import Fields
from modeling.serving.gateway_parts import ask_in_parts
from modeling.serving.gateway_screen import screen
from saas.lib.errors import Refusal


async def embed(call: Call, fields: Fields) -> None:
    """POST /v1/embeddings: billed by tokens."""
    body = Embed.read(fields)
    serving = await call.serving(body.model, "embedding")
    target = serving.target
    one = len(body.inputs) == 1
    async with call.counted("tokens", 1) as tally:
        screened = await screen(
            call.exchange, serving, body.inputs, lambda at: "input" if one else f"input[{at}]"
        )
        found = await ask_in_parts(call, "embed", target, screened.texts)
        if body.dimensions not in (None, found["width"]):
            raise Refusal(
                f"dimensions: this model has {found['width']}.", code="invalid_value", param="dimensions"
            )
        write = _base64 if body.base64 else _floats
        data = [
            {"object": "embedding", "index": index, "embedding": write(vector)}
            for index, vector in enumerate(found["vectors"])
        ]
        usage = {"prompt_tokens": found["tokens"], "total_tokens": found["tokens"]}
        answer: dict[str, Any] = {"object": "list", "data": data, "model": target.model, "usage": usage}
        answer |= screened.note()
        await call.exchange.answer(200, answer)
        tally.delivered = tally.read = found["tokens"]
        after(call, serving, "embed", {"inputs": screened.texts}, answer)


def _floats(vector: bytes) -> list[float]:
    values = array("f", vector)
    if sys.byteorder == "big":
        values.byteswap()
    return values.tolist()


def _base64(vector: bytes) -> str:
    return base64.b64encode(vector).decode()
