"""What was used, written within a second in one transaction per tenant, and at the stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field
from datetime import datetime

from django.db import Error as DatabaseFailure
from django.db import IntegrityError
from django.utils import timezone

from billing.actions import record_usages
from modeling.models.served import ServedMinutes
from modeling.serving.gateway_auth import in_database
from modeling.serving.gateway_metrics import Seen
from modeling.serving.gateway_served import Served, write_served
from saas.lib.errors import Refusal
from tenants.models import Tenant
from tenants.scope import scope

log = logging.getLogger("cloister.gateway")

FLUSH_SECONDS = (
    0.5  # from the start of one write to the next: with both, less than the second a kill may lose
)
LEAST_REST_SECONDS = 0.1
SERVED_SECONDS = 3.0  # what the pages of models show is not billed: it is written less often
ROWS_AT_ONCE = 5_000
MOST_WAITING = 100_000  # rows in memory while the database is away; one is about 300 bytes
UsageRow = tuple[str, float, str, datetime]


@dataclass
class _Lane:
    tenant: Tenant
    rows: list[UsageRow] = field(default_factory=list)


class UsageBatches:
    """Collects usage; a row is unique by (tenant, request, kind), so writing one twice counts it once."""

    def __init__(self) -> None:
        self.waiting = 0  # rows that the database does not have yet
        self._lanes: dict[str, _Lane] = {}
        self._served = Served()
        self._noted: dict[str, Tenant] = {}  # with something new in `_served`
        self._served_at = 0.0
        self._writing = asyncio.Lock()
        self._closing = asyncio.Event()

    def add(self, tenant: Tenant, kind: str, quantity: float, request_id: str) -> None:
        """Count; nothing for a quantity of 0."""
        if quantity > 0:
            lane = self._lanes.setdefault(str(tenant.pk), _Lane(tenant))
            lane.rows.append((kind, quantity, request_id, timezone.now()))
            self.waiting += 1

    def note(self, tenant: Tenant, route: str, seen: Seen, seconds: float) -> None:
        """Count a request for the pages of its model; written in a transaction of the usage."""
        self._noted[str(tenant.pk)] = tenant
        self._served.note(tenant, route, seen, seconds)

    def require_room(self) -> None:
        """Raise Refusal 503 while so much is unwritten that more could not be kept."""
        if self.waiting >= MOST_WAITING:
            raise Refusal(
                "The service cannot count usage at the moment. Try again shortly.",
                status=503,
                code="usage_unavailable",
                kind="server_error",
                headers={"retry-after": "5"},
            )

    async def run(self) -> None:
        """Flush until closed, and once more then. Not to be cancelled: close it."""
        clock = asyncio.get_running_loop().time
        began = clock()
        while not self._closing.is_set():
            rest = max(LEAST_REST_SECONDS, began + FLUSH_SECONDS - clock())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), rest)
            began = clock()
            is_due = self._closing.is_set() or began - self._served_at >= SERVED_SECONDS
            await self.flush(served=is_due)

    def close(self) -> None:
        """Let `run` write what is left and end."""
        self._closing.set()

    async def flush(self, *, served: bool = True) -> None:
        """Write all that was counted, or only what is billed; what the database refuses now waits for the next time."""
        async with self._writing:
            lanes, self._lanes = self._lanes, {}
            if served:
                self._served_at = asyncio.get_running_loop().time()
                noted, self._noted = self._noted, {}
                lanes |= {key: _Lane(tenant) for key, tenant in noted.items() if key not in lanes}
            try:
                for lane in lanes.values():
                    await self._write(lane, served=served)
            finally:  # what is not written stays
                for key, lane in lanes.items():
                    if lane.rows:
                        self._lanes.setdefault(key, _Lane(lane.tenant)).rows[:0] = lane.rows
            self._served.tidy()

    async def _write(self, lane: _Lane, *, served: bool) -> None:
        fresh = self._served.changed(lane.tenant) if served else []
        try:
            while lane.rows or fresh:
                rows = lane.rows[:ROWS_AT_ONCE]
                await asyncio.shield(in_database(_write, lane.tenant, rows, fresh))
                self._written(lane, rows)
                fresh = []
        except IntegrityError:
            log.error("%d rows of usage are of a tenant that is gone", len(lane.rows))
            self._written(lane, lane.rows[:])
        except DatabaseFailure as error:
            log.error("usage was not written (%s), it is kept: %d rows", type(error).__name__, len(lane.rows))
            self._served.unwritten(lane.tenant, fresh)
            self._noted[str(lane.tenant.pk)] = lane.tenant

    def _written(self, lane: _Lane, rows: list[UsageRow]) -> None:
        del lane.rows[: len(rows)]
        self.waiting -= len(rows)


def _write(tenant: Tenant, rows: list[UsageRow], served: list[ServedMinutes]) -> None:
    with scope(tenant):
        record_usages(tenant, rows)
        write_served(tenant, served)
