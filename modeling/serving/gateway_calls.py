"""The four hot calls: from a checked body to the engine and back, in the shapes of product.md and OpenAI's API."""

from __future__ import annotations

import base64
import sys
import time
from array import array
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from modeling.core.heads import TABULAR
from modeling.serving.client import EngineClient
from modeling.serving.gateway_auth import Admission, Doorkeeper
from modeling.serving.gateway_bodies import Chat, Classify, Embed, Recommend
from modeling.serving.gateway_fields import Fields
from modeling.serving.gateway_http import Exchange
from modeling.serving.gateway_limits import Limiter
from modeling.serving.gateway_usage import UsageBatches
from modeling.serving.targets import Target, require_task
from modeling.serving.wire import EngineRefusal, Kind
from saas.lib.db import public_id
from saas.lib.errors import Refusal

SECONDS = 30.0
CHAT_SECONDS = 300.0
_STATUS = {
    "busy": (429, "engine_busy", "requests"),
    "deadline": (504, "timeout", "server_error"),
    "unavailable": (503, "engine_unavailable", "server_error"),
    "no_base": (503, "model_unavailable", "server_error"),
    "bad_artifact": (503, "model_unavailable", "server_error"),
    "revoked": (404, "model_not_found", "invalid_request_error"),
    "wrong_task": (400, "wrong_task", "invalid_request_error"),
    "bad_cell": (400, "invalid_value", "invalid_request_error"),
    "context_length": (400, "context_length_exceeded", "invalid_request_error"),
    "unknown_item": (400, "unknown_item", "invalid_request_error"),
}
_PARAMS = {
    "revoked": "model",
    "wrong_task": "model",
    "bad_cell": "inputs",
    "context_length": "messages",
    "unknown_item": "similar_to",
}


@dataclass(frozen=True)
class Call:
    """One admitted request and what it needs."""

    exchange: Exchange
    admission: Admission
    engine: EngineClient
    doors: Doorkeeper
    limiter: Limiter
    usage: UsageBatches

    async def target(self, model: str, task: str) -> Target:
        """The model, if it is this tenant's and does this task; raises Refusal."""
        return require_task(await self.doors.target(self.admission.caller.tenant.pk, model), task)

    async def ask(self, op: str, target: Target, **body: Any) -> dict[str, Any]:
        """The engine's answer; raises Refusal."""
        tenant = str(self.admission.caller.tenant.pk)
        try:
            return await self.engine.ask(op, tenant=tenant, seconds=SECONDS, **target.body(), **body)
        except EngineRefusal as refusal:
            raise refused(refusal) from refusal

    @asynccontextmanager
    async def counted(self, kind: str, amount: int) -> AsyncIterator[Tally]:
        """Reserve `amount` against the limits; at the end bill what the tally says was delivered."""
        rate = await self.limiter.take(self.admission, **{kind: amount})
        self.exchange.extra.update(rate.headers() if rate is not None else {})
        tally = Tally()
        try:
            yield tally
        finally:
            self.usage.add(self.admission.caller.tenant, kind, tally.delivered, self.exchange.request_id)
            await self.limiter.adjust(self.admission, kind, tally.delivered - amount)


@dataclass(slots=True)
class Tally:
    """What has reached the client so far, in the billed unit."""

    delivered: int = 0


def refused(refusal: EngineRefusal) -> Refusal:
    """The HTTP form of what the engine said."""
    status, code, kind = _STATUS.get(refusal.code, (500, "internal_error", "server_error"))
    message = refusal.message if refusal.code in _STATUS else "The server failed to answer. Try again."
    wait = refusal.retry_after_seconds
    headers = {"retry-after": str(max(1, round(wait)))} if wait else {}
    return Refusal(
        message, status=status, code=code, kind=kind, param=_PARAMS.get(refusal.code), headers=headers
    )


async def classify(call: Call, fields: Fields) -> None:
    """POST /v1/classify: one prediction per input."""
    body = Classify.read(fields)
    target = await call.target(body.model, "classification")
    if target.base == TABULAR:
        await _classify_rows(call, body, target)
        return
    texts = body.texts()
    async with call.counted("predictions", len(body.inputs)) as tally:
        top = {} if body.top_k is None else {"top_k": body.top_k}
        found = await call.ask("classify", target, inputs=texts, **top)
        results = [_result(scores, body.abstain_below) for scores in found["results"]]
        for result, assigned in zip(results, found.get("assigned", ()), strict=False):
            result["assigned"] = [] if result["abstained"] else assigned
        tokens = found["tokens"]
        usage = {"predictions": len(results), "prompt_tokens": tokens, "total_tokens": tokens}
        answer: dict[str, Any] = {"id": public_id("clf-"), "object": "classification", "model": target.model}
        answer |= {"results": results, "suggested_abstain_below": found["abstain_below"], "usage": usage}
        await call.exchange.answer(200, answer)
        tally.delivered = len(results)


async def _classify_rows(call: Call, body: Classify, target: Target) -> None:
    """The same for a model on columns: labels as for texts, or for a number its value and an interval around it."""
    rows = body.rows()
    async with call.counted("predictions", len(rows)) as tally:
        top = {} if body.top_k is None else {"top_k": body.top_k}
        found = await call.ask("classify", target, rows=rows, **top)
        usage = {"predictions": len(rows), "prompt_tokens": 0, "total_tokens": 0}
        answer: dict[str, Any] = {"id": public_id("clf-"), "object": target.task, "model": target.model}
        if "values" in found:
            answer |= {"results": found["values"], "usage": usage}
        else:
            results = [_result(scores, body.abstain_below) for scores in found["results"]]
            answer |= {"results": results, "suggested_abstain_below": found["abstain_below"], "usage": usage}
        await call.exchange.answer(200, answer)
        tally.delivered = len(rows)


def _result(scores: list[list[Any]], abstain_below: float | None) -> dict[str, Any]:
    label, confidence = scores[0]
    abstained = abstain_below is not None and confidence < abstain_below
    return {
        "label": None if abstained else label,
        "confidence": confidence,
        "labels": [{"label": name, "confidence": value} for name, value in scores],
        "abstained": abstained,
    }


async def recommend(call: Call, fields: Fields) -> None:
    """POST /v1/recommend: one prediction per request."""
    body = Recommend.read(fields)
    target = await call.target(body.model, "recommendation")
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


async def embed(call: Call, fields: Fields) -> None:
    """POST /v1/embeddings: billed by tokens."""
    body = Embed.read(fields)
    target = await call.target(body.model, "embedding")
    async with call.counted("tokens", 1) as tally:
        found = await call.ask("embed", target, inputs=body.inputs)
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
        answer = {"object": "list", "data": data, "model": target.model, "usage": usage}
        await call.exchange.answer(200, answer)
        tally.delivered = found["tokens"]


def _floats(vector: bytes) -> list[float]:
    values = array("f", vector)
    if sys.byteorder == "big":
        values.byteswap()
    return values.tolist()


def _base64(vector: bytes) -> str:
    return base64.b64encode(vector).decode()


async def chat(call: Call, fields: Fields) -> None:
    """POST /v1/chat/completions, whole or streamed; billed by the tokens that were sent."""
    body = Chat.read(fields)
    target = await call.target(body.model, "chat")
    async with call.counted("tokens", 1) as tally:
        frames = call.engine.stream(
            "chat",
            tenant=str(call.admission.caller.tenant.pk),
            seconds=CHAT_SECONDS,
            **target.body(),
            messages=body.messages,
            max_tokens=body.max_tokens,
            temperature=body.temperature,
            top_p=body.top_p,
            stop=body.stop,
            seed=body.seed,
        )
        answer = _Answer(public_id("chatcmpl-"), int(time.time()), target.model)
        async with aclosing(frames):
            try:
                if body.stream:
                    await _stream(call.exchange, frames, answer, tally, include_usage=body.include_usage)
                else:
                    await _whole(call.exchange, frames, answer, tally)
            except EngineRefusal as refusal:
                raise refused(refusal) from refusal


Frames = AsyncGenerator[tuple[Kind, dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class _Answer:
    id: str
    created: int
    model: str

    def body(self, kind: str, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        head = {"id": self.id, "object": kind, "created": self.created, "model": self.model}
        return {**head, "choices": choices, **more}

    def chunk(self, delta: dict[str, Any], finish: str | None, **more: Any) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return self.body("chat.completion.chunk", [choice], **more)


def _usage(end: dict[str, Any]) -> dict[str, int]:
    prompt, completion = int(end["prompt_tokens"]), int(end["completion_tokens"])
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


async def _whole(exchange: Exchange, frames: Frames, answer: _Answer, tally: Tally) -> None:
    texts: list[str] = []
    end: dict[str, Any] = {}
    async for kind, part in frames:
        if kind is Kind.DONE:
            end = part
        else:
            texts.append(part["text"])
    message = {"role": "assistant", "content": "".join(texts), "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": end["finish"]}
    usage = _usage(end)
    await exchange.answer(200, answer.body("chat.completion", [choice], usage=usage))
    tally.delivered = usage["total_tokens"]


async def _stream(
    exchange: Exchange, frames: Frames, answer: _Answer, tally: Tally, *, include_usage: bool
) -> None:
    more: dict[str, Any] = {"usage": None} if include_usage else {}
    async for kind, part in frames:
        if not exchange.is_begun:  # only now: what the engine refuses at once is an HTTP error
            await exchange.begin_stream()
            await exchange.event(
                answer.chunk({"role": "assistant", "content": "", "refusal": None}, None, **more)
            )
        if kind is Kind.PART:
            await exchange.event(answer.chunk({"content": part["text"]}, None, **more))
            tally.delivered = part["prompt_tokens"] + part["tokens"]
            continue
        await exchange.event(answer.chunk({}, part["finish"], **more))
        usage = _usage(part)
        if include_usage:
            await exchange.event(answer.body("chat.completion.chunk", [], usage=usage))
        await exchange.end_stream()
        tally.delivered = usage["total_tokens"]


CALLS: dict[str, Callable[[Call, Fields], Awaitable[None]]] = {
    "/v1/classify": classify,
    "/v1/recommend": recommend,
    "/v1/embeddings": embed,
    "/v1/chat/completions": chat,
}
