"""Asks shadow versions the same as those who answered, in the background, and counts how far they agree."""

from __future__ import annotations

import asyncio
import time
import uuid
from bisect import bisect_left
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from modeling.models.endpoints import Endpoint, ShadowDay
from modeling.serving.engines import Engines
from modeling.serving.gateway_metrics import count
from modeling.serving.latency import BOUNDS, added
from modeling.serving.targets import Target
from modeling.serving.wire import EngineRefusal, Kind
from tenants.scope import scope

AT_ONCE, AT_ONCE_OF_TENANT = 4, 2  # and one of an endpoint, so that none takes all
SECONDS = 20.0
_CHAT_SECONDS = 60.0
_NO_ROOM = ("busy", "unavailable")
_COUNTS = ("requests", "compared", "agreed", "failed", "dropped")


@dataclass(slots=True)
class ShadowCounts:
    """What one shadow did since the last write."""

    requests: int = 0
    compared: int = 0
    agreed: int = 0
    failed: int = 0
    dropped: int = 0
    served_latency: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    shadow_latency: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))


@dataclass(frozen=True, slots=True)
class Answered:
    """A request that was answered: what the engine was asked, what the client got, and how long it took."""

    tenant: uuid.UUID
    endpoint: str
    op: str
    asked: Mapping[str, Any]
    answer: Mapping[str, Any]
    seconds: float


class Shadows:
    """Asks in the background, a few at a time; what finds no room is left out and counted. Nothing is billed."""

    def __init__(self, engine: Engines) -> None:
        self._engine = engine
        self._asking: dict[
            str, tuple[uuid.UUID, asyncio.Task[None]]
        ] = {}  # by endpoint: whose, and the asking
        self._counts: dict[uuid.UUID, dict[tuple[str, str], ShadowCounts]] = {}

    def take(self, done: Answered, shadow: Target) -> None:
        """Ask the shadow, too, if there is room."""
        mine = sum(tenant == done.tenant for tenant, _task in self._asking.values())
        if done.endpoint in self._asking or mine >= AT_ONCE_OF_TENANT or len(self._asking) >= AT_ONCE:
            self._of(done, shadow).dropped += 1
            count("shadow_dropped")
            return
        task = asyncio.create_task(self._ask(done, shadow))
        self._asking[done.endpoint] = done.tenant, task
        task.add_done_callback(lambda _: self._asking.pop(done.endpoint, None))

    async def _ask(self, done: Answered, shadow: Target) -> None:
        started = time.perf_counter()
        try:
            found = await self._answer(done, shadow)
        except EngineRefusal as refusal:
            counts = self._of(done, shadow)
            if refusal.code in _NO_ROOM:
                counts.dropped += 1
                count("shadow_dropped")
            else:
                counts.failed += 1
            return
        counts = self._of(done, shadow)
        counts.requests += 1
        count("shadow_sent")
        counts.served_latency[bisect_left(BOUNDS, done.seconds)] += 1
        counts.shadow_latency[bisect_left(BOUNDS, time.perf_counter() - started)] += 1
        compared, agreed = compare(done.answer, found)
        counts.compared += compared
        counts.agreed += agreed

    async def _answer(self, done: Answered, shadow: Target) -> Mapping[str, Any]:
        """The shadow's answer; of a chat only that there was one."""
        seconds = _CHAT_SECONDS if done.op == "chat" else SECONDS
        frames = self._engine.stream(
            done.op, tenant=str(done.tenant), seconds=seconds, **shadow.body(), **done.asked
        )
        async with aclosing(frames):
            async for kind, found in frames:
                if kind is Kind.DONE:
                    return found
        return {}

    def _of(self, done: Answered, shadow: Target) -> ShadowCounts:
        rows = self._counts.setdefault(done.tenant, {})
        return rows.setdefault((done.endpoint, shadow.version), ShadowCounts())

    def taken(self) -> dict[uuid.UUID, dict[tuple[str, str], ShadowCounts]]:
        """The counts by tenant since the last time."""
        counts, self._counts = self._counts, {}
        return counts

    async def close(self) -> None:
        """Stop what is under way."""
        tasks = [task for _tenant, task in self._asking.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def compare(answer: Mapping[str, Any], found: Mapping[str, Any]) -> tuple[int, int]:
    """(how many answers can be compared, in how many the best label or item is the same)."""
    served, shadowed = _best_served(answer), _best_found(found)
    pairs = list(zip(served, shadowed, strict=False))
    return len(pairs), sum(one == other for one, other in pairs)


def _best_served(answer: Mapping[str, Any]) -> list[Any]:
    if "items" in answer:
        return [one["item"] for one in answer["items"][:1]]
    results = answer.get("results", [])
    return [one["labels"][0]["label"] for one in results if one.get("labels")]


def _best_found(found: Mapping[str, Any]) -> list[Any]:
    if "items" in found:
        return [one[0] for one in found["items"][:1]]
    return [scores[0][0] for scores in found.get("results", [])]


def write_counts(tenant_id: uuid.UUID, counts: Mapping[tuple[str, str], ShadowCounts]) -> None:
    """Add to the day's rows; of endpoints that are gone nothing is kept. Opens the tenant's scope."""
    with scope(tenant_id):
        endpoints = Endpoint.objects.of(tenant_id).filter(pk__in={endpoint for endpoint, _ in counts})
        living = {str(pk) for pk in endpoints.select_for_update().order_by("pk").values_list("pk", flat=True)}
        day = datetime.now(UTC).date()
        for (endpoint, shadow), fresh in counts.items():
            if endpoint not in living:
                continue
            row, _made = ShadowDay.objects.of(tenant_id).get_or_create(
                endpoint_id=uuid.UUID(endpoint),
                shadow_id=uuid.UUID(shadow),
                day=day,
                defaults={"tenant_id": tenant_id},
            )
            for name in _COUNTS:
                setattr(row, name, getattr(row, name) + getattr(fresh, name))
            row.served_latency = added([row.served_latency, fresh.served_latency])
            row.shadow_latency = added([row.shadow_latency, fresh.shadow_latency])
            row.save()
