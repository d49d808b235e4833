"""What follows an answer: the prediction log and the shadow, for those who asked for them. Delays and fails nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError
from django.utils import timezone

from modeling.actions import endpoints, predictions
from modeling.actions.predictions import Entry
from modeling.serving.engines import Engines
from modeling.serving.gateway_auth import in_database
from modeling.serving.gateway_canary import Canaries, Verdict
from modeling.serving.gateway_metrics import Seen, count
from modeling.serving.gateway_shadow import Answered, Shadows, write_counts
from tenants import vault

if TYPE_CHECKING:
    from modeling.serving.gateway_call import Call, Serving

log = logging.getLogger("cloister.gateway")

FLUSH_SECONDS = 1.0
MOST_WAITING = 4_000  # entries in memory, of all tenants
MOST_BYTES_WAITING = 64 * 1024 * 1024  # of the bodies that they came from
MOST_SHARE = 0.5  # of either for one tenant
_LEFT_OUT = ("data", "usage", "id", "object", "model")  # of answers: vectors, and what the entry says already


class Afterwards:
    """Log entries and shadow counts of one gateway, written once a second; a log kept is written also at the stop."""

    def __init__(self, engine: Engines) -> None:
        self._shadows = Shadows(engine)
        self._canaries = Canaries()
        self._entries: dict[uuid.UUID, list[Entry]] = {}
        self._bytes: dict[uuid.UUID, int] = {}
        self._writing = asyncio.Lock()
        self._closing = asyncio.Event()

    def take(
        self, call: Call, serving: Serving, op: str, asked: Mapping[str, Any], answer: Mapping[str, Any]
    ) -> None:
        """Note one answered request."""
        route, tenant = serving.route, call.admission.caller.tenant.pk
        seconds = time.perf_counter() - call.exchange.seen.started
        if route.shadow is not None:
            self._shadows.take(Answered(tenant, route.endpoint, op, asked, answer, seconds), route.shadow)
        if not route.rules.log_days:
            return
        if not self._has_room(tenant, call.exchange.body_bytes):
            count("log_dropped")
            return
        entry = Entry(
            endpoint=uuid.UUID(route.endpoint) if route.endpoint else None,
            at=timezone.now(),
            request_id=call.exchange.request_id,
            route=call.exchange.path,
            model=serving.target.model,
            milliseconds=round(seconds * 1000),
            asked={name: value for name, value in asked.items() if value is not None},
            answer={name: value for name, value in answer.items() if name not in _LEFT_OUT},
        )
        self._entries.setdefault(tenant, []).append(entry)
        self._bytes[tenant] = self._bytes.get(tenant, 0) + call.exchange.body_bytes

    def _has_room(self, tenant: uuid.UUID, size: int) -> bool:
        """Whether one more fits, in all and into the tenant's share."""
        many = sum(map(len, self._entries.values())), len(self._entries.get(tenant, ()))
        much = sum(self._bytes.values()) + size, self._bytes.get(tenant, 0) + size
        return (
            many[0] < MOST_WAITING
            and many[1] < MOST_WAITING * MOST_SHARE
            and much[0] <= MOST_BYTES_WAITING
            and much[1] <= MOST_BYTES_WAITING * MOST_SHARE
        )

    def begun(self, seen: Seen, tenant: uuid.UUID, serving: Serving) -> None:
        """A request has its model: watch how it ends, where a canary is tried out."""
        self._canaries.watch(seen, tenant, serving.route, serving.target)

    async def run(self) -> None:
        """Flush until closed, and once more then. Not to be cancelled: close it."""
        while not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), FLUSH_SECONDS)
            await self.flush()
        await self._shadows.close()

    def close(self) -> None:
        """Let `run` write what is left and end."""
        self._closing.set()

    async def flush(self) -> None:
        """Write all that was noted; what the database refuses now is dropped and counted, for it would only grow."""
        async with self._writing:
            entries, self._entries, self._bytes = self._entries, {}, {}
            for tenant, rows in entries.items():
                try:
                    await asyncio.shield(in_database(predictions.write, tenant, rows))
                except (DatabaseError, vault.KeysAway, vault.KeyDestroyed) as error:
                    count("log_dropped", len(rows))
                    log.error("%d predictions were not logged (%s)", len(rows), type(error).__name__)
            for tenant, counts in self._shadows.taken().items():
                try:
                    await asyncio.shield(in_database(write_counts, tenant, counts))
                except DatabaseError as error:
                    log.error("a shadow's counts were not written (%s)", type(error).__name__)
            for verdict in self._canaries.judged():
                try:
                    await asyncio.shield(in_database(_take_out, verdict))
                except DatabaseError as error:
                    log.error("a failing canary was not taken out (%s)", type(error).__name__)


def _take_out(verdict: Verdict) -> None:
    words = f"{verdict.failed} of the canary's last {verdict.of} answers failed"
    endpoints.stop_canary(verdict.tenant, verdict.endpoint, verdict.canary, why=words)
    log.warning("a canary was taken out: %s", words)


def after(call: Call, serving: Serving, op: str, asked: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
    """Once `answer` was sent: log it and ask the shadow `op` with `asked`, where the endpoint's owner wants that."""
    if call.afterwards is not None and (serving.route.shadow is not None or serving.route.rules.log_days):
        call.afterwards.take(call, serving, op, asked, answer)
