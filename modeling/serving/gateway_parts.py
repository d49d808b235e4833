"""Requests of many texts in parts: none is larger than what one tenant may have waiting in the engine's queue."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import Any

from modeling.serving.gateway_call import Call
from modeling.serving.targets import Target
from saas.lib.errors import Refusal

PART_TOKENS = 32_768  # a fourth of the queue
TEXT_TOKENS = 256  # longer texts are cut by the encoder
MAX_SECONDS = 300.0
_AGAIN_SECONDS = 0.25
_LISTS = ("results", "assigned", "vectors")  # of an answer: one entry for each input


async def ask_in_parts(
    call: Call, op: str, target: Target, inputs: Sequence[str], **body: Any
) -> dict[str, Any]:
    """The engine's answer to all inputs, asked for part by part: others' requests come in between. Raises Refusal."""
    until = time.monotonic() + MAX_SECONDS
    whole: dict[str, Any] = {}
    for part in parts(inputs):
        answer = await _asked(call, op, target, part, body, until if whole else 0.0)
        if whole:
            answer |= {name: whole[name] + answer[name] for name in (*_LISTS, "tokens") if name in answer}
        whole = answer
    return whole


async def _asked(
    call: Call, op: str, target: Target, part: Sequence[str], body: dict[str, Any], until: float
) -> dict[str, Any]:
    """One part. While the engine is busy a part that follows others waits for its turn, for they have been paid for."""
    while True:
        try:
            return await call.ask(op, target, inputs=part, **body)
        except Refusal as refusal:
            if refusal.code != "engine_busy" or time.monotonic() + _AGAIN_SECONDS > until:
                raise
        await asyncio.sleep(_AGAIN_SECONDS)


def parts(inputs: Sequence[str], most: int = PART_TOKENS) -> Iterator[Sequence[str]]:
    """The inputs in order, cut so that no part can have more than `most` tokens; a token has a character at least."""
    start, tokens = 0, 0
    for at, text in enumerate(inputs):
        cost = min(TEXT_TOKENS, len(text) + 2)
        if at > start and tokens + cost > most:
            yield inputs[start:at]
            start, tokens = at, 0
        tokens += cost
    yield inputs[start:]
