"""The personal-data rule of an endpoint: texts are looked through before the model or any log sees them.

Within the limits: looking takes time, and a tenant over its rate may not take it from the others.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from modeling.core.personal_policy import Policy
from modeling.core.personal_policy import Screened as Text
from modeling.serving.gateway_call import Serving
from modeling.serving.gateway_http import Exchange
from modeling.serving.gateway_metrics import count
from modeling.serving.turns import Turns
from saas.lib.errors import Refusal

HEADER = "x-cloister-personal-data"
INLINE_CHARACTERS = (
    4_000  # at once looked through on the event loop: a millisecond; more goes to the side thread
)
CHUNK_CHARACTERS = (
    20_000  # one turn on the side thread, so that a long request waits for the short ones behind it
)
MAX_SECONDS = 15.0
_WORDS = {"report": "note"}  # as rules of endpoints call it
_NAMED = 5  # places that a refusal lists
_SIDE = ThreadPoolExecutor(1, "screen")  # one: what it runs holds the interpreter's lock anyway
_TURNS: WeakKeyDictionary[asyncio.AbstractEventLoop, Turns] = WeakKeyDictionary()

Cells = Mapping[str, Any]
Messages = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Screened:
    """Texts as the model may see them, under a policy (off | note | mask), and what was found by kind."""

    texts: tuple[str, ...]
    policy: str = "off"
    found: Mapping[str, int] = field(default_factory=dict)

    def note(self) -> dict[str, Any]:
        """The answer's `personal_data`, {} under the policy off: kinds and counts, never what was found."""
        if self.policy == "off":
            return {}
        return {"personal_data": {"policy": self.policy, "found": dict(self.found)}}


async def screen(
    exchange: Exchange, serving: Serving, texts: Sequence[str], name: Callable[[int], str]
) -> Screened:
    """The texts under the route's rule; `name` says which parameter a text is. Raises Refusal `personal_data`."""
    tenant = exchange.seen.tenant
    whose = str(tenant.pk) if tenant is not None else ""
    screened = await under_rule(serving.route.rules.policy, texts, name, tenant=whose)
    if screened.policy != "off":
        found = (f"{kind}={many}" for kind, many in screened.found.items())
        exchange.extra[HEADER] = "; ".join([screened.policy, *found])
    return screened


async def under_rule(
    policy: Policy, texts: Sequence[str], name: Callable[[int], str], *, tenant: str
) -> Screened:
    """The same for whoever has a policy and no exchange. Raises Refusal `personal_data`."""
    word = _WORDS.get(policy.strictest, policy.strictest)
    if word == "off":
        return Screened(tuple(texts))
    seen = [one async for one in _looked_through(policy, texts, tenant)]
    count("texts_screened", len(seen))
    if any(one.refused for one in seen):
        count("requests_blocked")
        raise _blocked({name(at): _refused(one) for at, one in enumerate(seen) if one.refused})
    count("texts_masked", sum(one.text != text for one, text in zip(seen, texts, strict=True)))
    total = sum((Counter(one.found) for one in seen), Counter[str]())
    return Screened(tuple(one.text for one in seen), word, total)


def _refused(seen: Text) -> dict[str, int]:
    return {kind: seen.found[kind] for kind in seen.refused}


async def screen_rows(
    exchange: Exchange, serving: Serving, rows: Sequence[Cells]
) -> tuple[list[Cells], Screened]:
    """The same for the cells that are texts in a table's rows."""
    places = [
        (at, column) for at, row in enumerate(rows) for column, cell in row.items() if isinstance(cell, str)
    ]

    def name(at: int) -> str:
        row, column = places[at]
        is_plain = column.isidentifier() and len(column) <= 64  # anything else is not echoed
        return f"inputs[{row}].{column}" if is_plain else f"inputs[{row}]"

    screened = await screen(exchange, serving, [rows[at][column] for at, column in places], name)
    changed = [dict(row) for row in rows]
    for (at, column), text in zip(places, screened.texts, strict=True):
        changed[at][column] = text
    return list(changed), screened


async def screen_messages(
    exchange: Exchange, serving: Serving, messages: Messages
) -> tuple[tuple[dict[str, Any], ...], Screened]:
    """The same for a conversation, whoever speaks."""
    texts = [str(message["content"]) for message in messages]
    screened = await screen(exchange, serving, texts, lambda at: f"messages[{at}].content")
    pairs = zip(messages, screened.texts, strict=True)
    return tuple({**message, "content": text} for message, text in pairs), screened


async def _looked_through(policy: Policy, texts: Sequence[str], tenant: str) -> AsyncIterator[Text]:
    """Each text under the policy, in order; long work, and reading the lists of names, on the side thread."""
    turns = _TURNS.setdefault(asyncio.get_running_loop(), Turns(_SIDE))
    is_short = sum(map(len, texts)) <= INLINE_CHARACTERS and policy.is_ready()
    spent = 0.0
    for chunk in _chunks(texts):
        work = _screened(policy, chunk) if is_short else await turns.run(tenant, _screened, policy, chunk)
        spent += work.seconds
        if spent > MAX_SECONDS:
            raise Refusal(
                "It takes too long to look through these texts for personal data: send fewer of them at once.",
                code="personal_data_limit",
            )
        for one in work.texts:
            yield one


@dataclass(frozen=True, slots=True)
class _Work:
    texts: list[Text]
    seconds: float


def _screened(policy: Policy, texts: Sequence[str]) -> _Work:
    started = time.perf_counter()
    return _Work([policy.screen(text) for text in texts], time.perf_counter() - started)


def _chunks(texts: Sequence[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    size = 0
    for text in texts:
        if chunk and size + len(text) > CHUNK_CHARACTERS:
            yield chunk
            chunk, size = [], 0
        chunk.append(text)
        size += len(text)
    if chunk:
        yield chunk


def _blocked(places: Mapping[str, Mapping[str, int]]) -> Refusal:
    """Where and of which kind, never the value."""
    named = [f"{name} ({_listed(found)})" for name, found in list(places.items())[:_NAMED]]
    rest = f" and {len(places) - _NAMED} more" if len(places) > _NAMED else ""
    return Refusal(
        f"This call refuses texts with personal data. Found: {', '.join(named)}{rest}. Take it out, or change the "
        "rules of the endpoint.",
        code="personal_data",
        param=next(iter(places)),
    )


def _listed(found: Mapping[str, int]) -> str:
    return ", ".join(f"{kind}: {many}" for kind, many in found.items())
