"""The playground's conversations: whole or streamed, with one model or several at once."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from asgiref.sync import async_to_sync, sync_to_async
from django.utils.translation import gettext as _

from modeling.actions import trying_facts
from modeling.actions.trying import MOST_CHARACTERS, request_id
from modeling.serving.engines import Engines
from modeling.serving.gateway_call import refused
from modeling.serving.gateway_screen import under_rule
from modeling.serving.targets import Target, serving_route
from modeling.serving.wire import EngineRefusal, Kind
from saas.lib.errors import Refusal
from tenants.models import Tenant

CHAT_SECONDS = 180.0
MOST_TURNS = 40
LONGEST_ANSWER = 400  # tokens

Turns = list[dict[str, str]]


@dataclass
class Told:
    """A whole answer, or why there is none; `facts` say what it took and cost."""

    text: str = ""
    facts: list[str] = field(default_factory=list)
    refusal: str = ""


def check_messages(value: object) -> Turns:
    """Turns of a chat as sent by the page; raises Refusal."""
    if not isinstance(value, list) or not value:
        raise Refusal(_("Write a message first."), param="messages")
    turns = []
    for one in value[-MOST_TURNS:]:
        role, content = (one.get("role"), one.get("content")) if isinstance(one, dict) else (None, None)
        if role not in ("user", "assistant") or not isinstance(content, str):
            raise Refusal(_("A turn needs a role and a text."), param="messages")
        turns.append({"role": str(role), "content": content[:MOST_CHARACTERS]})
    return turns


async def chat_events(tenant: Tenant, target: Target, messages: Turns) -> AsyncIterator[bytes]:
    """Server-sent events in the shape of /v1/chat/completions, then one with `facts`.

    What was sent is counted also when the reader leaves.
    """
    facts: list[str] = []
    try:
        async with aclosing(_chat(tenant, target, messages, facts)) as texts:
            async for text in texts:
                yield _event({"choices": [{"index": 0, "delta": {"content": text}}]})
        yield _event({"choices": [], "facts": " · ".join(facts)})
        yield b"data: [DONE]\n\n"
    except Refusal as refusal:
        yield _event(refusal.body())


def chat_whole(tenant: Tenant, targets: Sequence[Target], messages: Turns) -> list[Told]:
    """The answers of all targets, asked at the same time, for pages without JavaScript."""
    return async_to_sync(_all)(tenant, targets, messages)


async def _all(tenant: Tenant, targets: Sequence[Target], messages: Turns) -> list[Told]:
    return list(await asyncio.gather(*(_collected(tenant, target, messages) for target in targets)))


async def _collected(tenant: Tenant, target: Target, messages: Turns) -> Told:
    told = Told()
    try:
        async with aclosing(_chat(tenant, target, messages, told.facts)) as texts:
            told.text = "".join([text async for text in texts])
    except Refusal as refusal:
        told.refusal = refusal.message
    return told


async def _chat(
    tenant: Tenant, target: Target, messages: Turns, facts: list[str]
) -> AsyncGenerator[str, None]:
    """The answer's pieces; raises Refusal. Closing it early cancels the engine's work and counts what was made."""
    messages = await _under_rule(tenant, target, messages)
    seen, engines = trying_facts.begin(tenant, target), Engines.from_settings()
    try:
        frames = engines.stream(
            "chat", tenant=str(tenant.pk), seconds=CHAT_SECONDS, **target.body(),
            messages=messages, max_tokens=LONGEST_ANSWER, temperature=0.7, top_p=0.95, stop=[], seed=None,
        )  # fmt: skip
        async with aclosing(frames):
            async for kind, part in frames:
                seen.first_token = seen.first_token or time.perf_counter() - seen.started
                made = part["tokens"] if kind is Kind.PART else part["completion_tokens"]
                seen.tokens_in, seen.tokens_out = int(part["prompt_tokens"]), int(made)
                if kind is Kind.PART:
                    yield part["text"]
    except EngineRefusal as refusal:
        raise refused(refusal) from refusal
    finally:
        await engines.close()
        if seen.tokens_in:
            facts += await sync_to_async(trying_facts.finish)(tenant, seen, request_id())


async def _under_rule(tenant: Tenant, target: Target, messages: Turns) -> Turns:
    """The turns as the model may see them, by the rule for calls by its own name; raises Refusal `personal_data`."""
    route = await sync_to_async(serving_route)(tenant.pk, target.model)
    texts = [one["content"] for one in messages]
    policy, whose = route.rules.policy, str(tenant.pk)
    screened = await under_rule(policy, texts, lambda at: f"messages[{at}].content", tenant=whose)
    return [one | {"content": text} for one, text in zip(messages, screened.texts, strict=True)]


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
