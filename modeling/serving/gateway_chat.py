"""POST /v1/chat/completions in OpenAI's shape, whole or streamed."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from modeling.serving.gateway_after import after
from modeling.serving.gateway_call import Call, Tally, refused
from modeling.serving.gateway_chat_body import Chat
from modeling.serving.gateway_fields import Fields
from modeling.serving.gateway_http import Exchange
from modeling.serving.gateway_screen import screen_messages
from modeling.serving.wire import EngineRefusal, Kind
from saas.lib.db import public_id

CHAT_SECONDS = 300.0


async def chat(call: Call, fields: Fields) -> None:
    """POST /v1/chat/completions, whole or streamed; billed by the tokens that were sent."""
    body = Chat.read(fields)
    serving = await call.serving(body.model, "chat")
    target = serving.target
    asked = body.wishes()
    async with call.counted("tokens", 1) as tally:
        asked["messages"], screened = await screen_messages(call.exchange, serving, body.messages)
        tenant = str(call.admission.caller.tenant.pk)
        seconds = call.exchange.seconds(CHAT_SECONDS)
        frames = call.engine.stream(
            "chat", tenant=tenant, seconds=seconds, at_once=not body.stream, **target.body(), **asked
        )
        answer = _Answer(public_id("chatcmpl-"), int(time.time()), target.model, screened.note())
        async with aclosing(frames):
            try:
                if body.stream:
                    text = await _stream(
                        call.exchange, frames, answer, tally, include_usage=body.include_usage
                    )
                else:
                    text = await _whole(call.exchange, frames, answer, tally)
                after(call, serving, "chat", asked, {"text": text})
            except EngineRefusal as refusal:
                raise refused(refusal) from refusal


Frames = AsyncGenerator[tuple[Kind, dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class _Answer:
    id: str
    created: int
    model: str
    note: dict[str, Any]  # what was found under the personal-data rule

    def body(self, kind: str, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        head = {"id": self.id, "object": kind, "created": self.created, "model": self.model}
        return {**head, "choices": choices, **more}

    def chunk(
        self, delta: dict[str, Any], finish: str | None, logprobs: list[Any] | None = None, **more: Any
    ) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": _logprobs(logprobs), "finish_reason": finish}
        return self.body("chat.completion.chunk", [choice], **more)


def _logprobs(tokens: list[Any] | None) -> dict[str, Any] | None:
    return None if tokens is None else {"content": tokens, "refusal": None}


def _usage(end: dict[str, Any]) -> dict[str, int]:
    prompt, completion = int(end["prompt_tokens"]), int(end["completion_tokens"])
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


async def _whole(exchange: Exchange, frames: Frames, answer: _Answer, tally: Tally) -> str:
    """Send the whole answer; returns its text."""
    texts: list[str] = []
    logprobs: list[Any] | None = None
    end: dict[str, Any] = {}
    async for kind, part in frames:
        if kind is Kind.DONE:
            end = part
            continue
        texts.append(part["text"])
        if "logprobs" in part:
            logprobs = (logprobs or []) + part["logprobs"]
    message = {"role": "assistant", "content": "".join(texts), "refusal": None}
    choice = {
        "index": 0,
        "message": message,
        "logprobs": _logprobs(logprobs),
        "finish_reason": end["finish"],
    }
    usage = _usage(end)
    await exchange.answer(200, answer.body("chat.completion", [choice], usage=usage, **answer.note))
    tally.delivered, tally.read = usage["total_tokens"], usage["prompt_tokens"]
    return "".join(texts)


async def _stream(
    exchange: Exchange, frames: Frames, answer: _Answer, tally: Tally, *, include_usage: bool
) -> str:
    """Send the answer as it comes; returns its text."""
    texts: list[str] = []
    more: dict[str, Any] = {"usage": None} if include_usage else {}
    async for kind, part in frames:
        if not exchange.is_begun:  # only now: what the engine refuses at once is an HTTP error
            await exchange.begin_stream()
            await exchange.event(
                answer.chunk({"role": "assistant", "content": "", "refusal": None}, None, **more)
            )
        if kind is Kind.PART:
            chunk = answer.chunk({"content": part["text"]}, None, part.get("logprobs"), **more)
            await exchange.event(chunk)
            texts.append(part["text"])
            tally.delivered, tally.read = part["prompt_tokens"] + part["tokens"], part["prompt_tokens"]
            continue
        await exchange.event(answer.chunk({}, part["finish"], **more))
        usage = _usage(part)
        if include_usage:
            await exchange.event(answer.body("chat.completion.chunk", [], usage=usage))
        await exchange.end_stream()
        tally.delivered, tally.read = usage["total_tokens"], usage["prompt_tokens"]
    return "".join(texts)
