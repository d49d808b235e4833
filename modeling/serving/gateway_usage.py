"""What was used, written once a second in one transaction per tenant, and at the stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field
from datetime import datetime

from django.db import DatabaseError
from django.utils import timezone

from billing.actions import record_usages
from modeling.serving.gateway_auth import in_database
from tenants.models import Tenant
from tenants.scope import scope

log = logging.getLogger("cloister.gateway")

FLUSH_SECONDS = 1.0
UsageRow = tuple[str, float, str, datetime]


@dataclass
class _Lane:
    tenant: Tenant
    rows: list[UsageRow] = field(default_factory=list)


class UsageBatches:
    """Collects usage; a row is unique by (tenant, request, kind), so writing one twice counts it once."""

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane] = {}
        self._writing = asyncio.Lock()
        self._closing = asyncio.Event()

    def add(self, tenant: Tenant, kind: str, quantity: float, request_id: str) -> None:
        """Count; nothing for a quantity of 0."""
        if quantity > 0:
            lane = self._lanes.setdefault(str(tenant.pk), _Lane(tenant))
            lane.rows.append((kind, quantity, request_id, timezone.now()))

    async def run(self) -> None:
        """Flush until closed, and once more then. Not to be cancelled: close it."""
        while not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), FLUSH_SECONDS)
            await self.flush()

    def close(self) -> None:
        """Let `run` write what is left and end."""
        self._closing.set()

    async def flush(self) -> None:
        """Write all that was counted; what the database refuses now waits for the next time."""
        async with self._writing:
            lanes, self._lanes = self._lanes, {}
            for key, lane in lanes.items():
                try:
                    await asyncio.shield(in_database(_write, lane.tenant, lane.rows))
                except DatabaseError as error:
                    log.error(
                        "usage was not written (%s), it is kept: %d rows",
                        type(error).__name__,
                        len(lane.rows),
                    )
                    self._lanes.setdefault(key, _Lane(lane.tenant)).rows[:0] = lane.rows


def _write(tenant: Tenant, rows: list[UsageRow]) -> None:
    with scope(tenant):
        record_usages(tenant, rows)
