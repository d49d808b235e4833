"""The playground's calls: a signed-in member asks the engine as a program would, and it counts as usage."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from asgiref.sync import async_to_sync, sync_to_async
from django.conf import settings
from django.utils.translation import gettext as _

from billing import limits
from billing.actions import record_usage
from modeling.core.recommend_scores import POPULAR
from modeling.serving.client import EngineClient, ask_once
from modeling.serving.gateway_call import refused
from modeling.serving.targets import Target, require_task, serving_target
from modeling.serving.wire import EngineRefusal, Kind
from saas.lib.errors import Refusal
from tenants.models import Tenant
from tenants.scope import scope

SECONDS = 30.0
CHAT_SECONDS = 180.0
MOST_TURNS = 40
MOST_CHARACTERS = 20_000
MOST_ITEMS = 500
LONGEST_ANSWER = 400  # tokens


@dataclass(frozen=True)
class Scored:
    """One line of an answer: a label or item, its share 0..1 for the bar, and the number as printed."""

    name: str
    share: float
    words: str


@dataclass(frozen=True)
class Tried:
    """An answer and how long it took."""

    results: list[Scored]
    took_ms: int
    advice: str = ""  # what the model's calibration suggests about this answer


def _request_id() -> str:
    return f"play_{secrets.token_hex(16)}"


def _target(tenant: Tenant, model: str, task: str, kind: str) -> Target:
    """The model, once the plan allows one more call; raises Refusal."""
    with scope(tenant):
        limits.require_open(tenant)
        limits.require(tenant, kind, 1)
    return require_task(serving_target(tenant.pk, model), task)


def _ask(tenant: Tenant, op: str, target: Target, **body: Any) -> tuple[dict[str, Any], int]:
    started = time.perf_counter()
    try:
        found = ask_once(
            settings.ENGINE_SOCKET, op, tenant=str(tenant.pk), seconds=SECONDS, **target.body(), **body
        )
    except EngineRefusal as refusal:
        raise refused(refusal) from refusal
    with scope(tenant):
        record_usage(tenant, "predictions", 1, _request_id())
    return found, round(1000 * (time.perf_counter() - started))


def classify(tenant: Tenant, model: str, text: str) -> Tried:
    """The five likeliest labels of a text; raises Refusal. Opens its own scopes."""
    text = text.strip()[:MOST_CHARACTERS]
    if not text:
        raise Refusal(_("Write a text first."), param="text")
    target = _target(tenant, model, "classification", "predictions")
    found, took = _ask(tenant, "classify", target, inputs=[text], top_k=5)
    scored = [Scored(name, value, f"{100 * value:.1f} %") for name, value in found["results"][0]]
    return Tried(scored, took, _advice(found))


def classify_row(tenant: Tenant, model: str, cells: dict[str, Any]) -> Tried:
    """The labels of one row of a table, or its number; raises Refusal. Opens its own scopes."""
    target = _target(tenant, model, "classification", "predictions")
    found, took = _ask(tenant, "classify", target, rows=[cells], top_k=5)
    if "values" not in found:
        scored = [Scored(name, value, f"{100 * value:.1f} %") for name, value in found["results"][0]]
        return Tried(scored, took, _advice(found))
    answer = found["values"][0]
    named = {"value": _("Value"), "low": _("Nine in ten above"), "high": _("Nine in ten below")}
    return Tried(
        [Scored(words, 0.0, f"{answer[name]:,.4g}") for name, words in named.items() if name in answer], took
    )


def _advice(found: dict[str, Any]) -> str:
    """Which labels hold, for a model of several; and what its suggested threshold says about the best one."""
    said = []
    if "assigned" in found:
        assigned = found["assigned"][0]
        said.append(
            _("Labels that hold: %(names)s.") % {"names": ", ".join(assigned)}
            if assigned
            else _("No label holds.")
        )
    threshold = found.get("abstain_below")
    if threshold is not None:
        words = {"threshold": f"{100 * threshold:.0f}"}
        said.append(
            _("Less sure than %(threshold)s %%: the model's calibration suggests to leave this to a person.")
            % words
            if found["results"][0][0][1] < threshold
            else _("Surer than %(threshold)s %%, from where its calibration suggests to trust the model.")
            % words
        )
    return " ".join(said)


def recommend(tenant: Tenant, model: str, history: Sequence[str]) -> Tried:
    """Ten items for a history of item ids; raises Refusal. Opens its own scopes."""
    target = _target(tenant, model, "recommendation", "predictions")
    found, took = _ask(tenant, "recommend", target, history=list(history[:MOST_ITEMS]), k=10)
    scores = [float(score) for _item, score in found["items"]]
    low, high = min(scores, default=0.0), max(scores, default=1.0)
    width = (high - low) or 1.0
    rows = [
        Scored(str(item), 0.1 + 0.9 * (float(score) - low) / width, f"{float(score):.2f}")
        for item, score in found["items"]
    ]
    popular = _("The model's catalogue knows none of these items: this is what most people choose.")
    return Tried(rows, took, popular if found["basis"] == POPULAR else "")


def check_messages(value: object) -> list[dict[str, str]]:
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


def chat_target(tenant: Tenant, model: str) -> Target:
    """The chat model, once the plan allows it; raises Refusal. Opens its own scopes."""
    return _target(tenant, model, "chat", "tokens")


async def chat_events(tenant: Tenant, target: Target, messages: list[dict[str, str]]) -> AsyncIterator[bytes]:
    """Server-sent events in the shape of /v1/chat/completions; what was sent is counted also when the reader leaves."""
    try:
        async with aclosing(_chat(tenant, target, messages)) as texts:
            async for text in texts:
                yield _event({"choices": [{"index": 0, "delta": {"content": text}}]})
        yield b"data: [DONE]\n\n"
    except Refusal as refusal:
        yield _event(refusal.body())


def chat_once(tenant: Tenant, target: Target, messages: list[dict[str, str]]) -> str:
    """The whole answer, for pages without JavaScript; raises Refusal."""
    return async_to_sync(_collected)(tenant, target, messages)


async def _collected(tenant: Tenant, target: Target, messages: list[dict[str, str]]) -> str:
    async with aclosing(_chat(tenant, target, messages)) as texts:
        return "".join([text async for text in texts])


async def _chat(tenant: Tenant, target: Target, messages: list[dict[str, str]]) -> AsyncGenerator[str, None]:
    """The answer's pieces; raises Refusal. Closing it early cancels the engine's work and counts what was made."""
    request_id, tokens = _request_id(), 0
    client = EngineClient(settings.ENGINE_SOCKET)
    try:
        frames = client.stream(
            "chat", tenant=str(tenant.pk), seconds=CHAT_SECONDS, **target.body(),
            messages=messages, max_tokens=LONGEST_ANSWER, temperature=0.7, top_p=0.95, stop=[], seed=None,
        )  # fmt: skip
        async with aclosing(frames):
            async for kind, part in frames:
                if kind is Kind.PART:
                    tokens = part["prompt_tokens"] + part["tokens"]
                    yield part["text"]
                else:
                    tokens = int(part["prompt_tokens"]) + int(part["completion_tokens"])
    except EngineRefusal as refusal:
        raise refused(refusal) from refusal
    finally:
        await client.close()
        if tokens:
            await sync_to_async(_count)(tenant, tokens, request_id)


def _count(tenant: Tenant, tokens: int, request_id: str) -> None:
    with scope(tenant):
        record_usage(tenant, "tokens", tokens, request_id)


def _event(body: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"
