"""POST /v1/classify: from a checked body to the engine and back."""

from __future__ import annotations

from typing import Any

from modeling.core.heads import TABULAR
from modeling.serving.gateway_after import after
from modeling.serving.gateway_bodies import Classify
from modeling.serving.gateway_call import Call, Serving
from modeling.serving.gateway_fields import Fields
from modeling.serving.gateway_parts import ask_in_parts
from modeling.serving.gateway_screen import screen, screen_rows
from saas.lib.db import public_id


async def classify(call: Call, fields: Fields) -> None:
    """POST /v1/classify: one prediction per input."""
    body = Classify.read(fields)
    serving = await call.serving(body.model, "classification")
    target = serving.target
    if target.base == TABULAR:
        await _classify_rows(call, body, serving)
        return
    given = body.texts()
    async with call.counted("predictions", len(body.inputs)) as tally:
        screened = await screen(call.exchange, serving, given, lambda at: f"inputs[{at}]")
        texts = screened.texts
        top = {} if body.top_k is None else {"top_k": body.top_k}
        found = await ask_in_parts(call, "classify", target, texts, **top)
        results = [_result(scores, body.abstain_below) for scores in found["results"]]
        for result, assigned in zip(results, found.get("assigned", ()), strict=False):
            result["assigned"] = [] if result["abstained"] else assigned
        tokens = found["tokens"]
        usage = {"predictions": len(results), "prompt_tokens": tokens, "total_tokens": tokens}
        answer: dict[str, Any] = {"id": public_id("clf-"), "object": "classification", "model": target.model}
        answer |= {"results": results, "suggested_abstain_below": found["abstain_below"], "usage": usage}
        answer |= screened.note()
        await call.exchange.answer(200, answer)
        tally.delivered, tally.read = len(results), tokens
        after(call, serving, "classify", {"inputs": texts, **top}, answer)


async def _classify_rows(call: Call, body: Classify, serving: Serving) -> None:
    """The same for a model on columns: labels as for texts, or for a number its value and an interval around it."""
    target = serving.target
    given = body.rows()
    async with call.counted("predictions", len(given)) as tally:
        rows, screened = await screen_rows(call.exchange, serving, given)
        top = {} if body.top_k is None else {"top_k": body.top_k}
        found = await call.ask("classify", target, rows=rows, **top)
        usage = {"predictions": len(rows), "prompt_tokens": 0, "total_tokens": 0}
        answer: dict[str, Any] = {"id": public_id("clf-"), "object": target.task, "model": target.model}
        if "values" in found:
            answer |= {"results": found["values"], "usage": usage}
        else:
            results = [_result(scores, body.abstain_below) for scores in found["results"]]
            answer |= {"results": results, "suggested_abstain_below": found["abstain_below"], "usage": usage}
        answer |= screened.note()
        await call.exchange.answer(200, answer)
        tally.delivered = len(rows)
        after(call, serving, "classify", {"rows": rows, **top}, answer)


def _result(scores: list[list[Any]], abstain_below: float | None) -> dict[str, Any]:
    label, confidence = scores[0]
    abstained = abstain_below is not None and confidence < abstain_below
    return {
        "label": None if abstained else label,
        "confidence": confidence,
        "labels": [{"label": name, "confidence": value} for name, value in scores],
        "abstained": abstained,
    }
