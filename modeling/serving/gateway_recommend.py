"""POST /v1/recommend: from a checked body to the engine and back."""

from __future__ import annotations

from typing import Any

from modeling.serving.gateway_bodies import Recommend
from modeling.serving.gateway_call import Call
from modeling.serving.gateway_fields import Fields
from saas.lib.db import public_id


async def recommend(call: Call, fields: Fields) -> None:
    """POST /v1/recommend: one prediction per request."""
    body = Recommend.read(fields)
    serving = await call.serving(body.model, "recommendation")
    target = serving.target
    async with call.counted("predictions", 1) as tally:
        found = await call.ask(
            "recommend",
            target,
            history=body.history,
            similar_to=body.similar_to,
            exclude=body.exclude,
            k=body.k,
        )
        items = [{"item": item, "score": score} for item, score in found["items"]]
        answer: dict[str, Any] = {"id": public_id("rec-"), "object": "recommendation", "model": target.model}
        answer |= {"basis": found["basis"], "items": items, "usage": {"predictions": 1}}
        await call.exchange.answer(200, answer)
        tally.delivered = 1
