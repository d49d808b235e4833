"""POST /v1/recommend: from a checked body to the engine and back."""

from __future__ import annotations

import time
from typing import Any

from modeling.serving.gateway_after import after
from modeling.serving.gateway_bodies import Recommend
from modeling.serving.gateway_call import Call
from modeling.serving.gateway_fields import Fields
from modeling.serving.recommendation_ids import issue


async def recommend(call: Call, fields: Fields) -> None:
    """POST /v1/recommend: one prediction per request. Item ids are not texts: no personal-data rule reads them."""
    body = Recommend.read(fields)
    serving = await call.serving(body.model, "recommendation")
    target = serving.target
    async with call.counted("predictions", 1) as tally:
        asked = body.wish()
        found = await call.ask("recommend", target, **asked)
        shown = [item for item, _ in found["items"]]
        name = issue(
            target.id_key,
            version=target.version,
            endpoint=serving.route.endpoint,
            items=shown,
            at=int(time.time()),
        )
        items = [{"item": item, "score": score} for item, score in found["items"]]
        answer: dict[str, Any] = {"id": name, "object": "recommendation", "model": target.model}
        answer |= {"basis": found["basis"], "items": items, "usage": {"predictions": 1}}
        if found["unknown"]:
            answer["unknown_items"] = found["unknown"]
        await call.exchange.answer(200, answer)
        tally.delivered = 1
        after(call, serving, "recommend", asked, answer)
