"""What each tenant's models answered, in five-minute rows that this process writes along with the usage."""

from __future__ import annotations

import secrets
import time
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from django.db.models import F

from modeling.models.served import COUNTS, MINUTES, Answers, ServedMinutes
from modeling.serving.gateway_metrics import GONE, METRICS, Seen
from modeling.serving.latency import BOUNDS
from tenants.models import Tenant

STEP_SECONDS = MINUTES * 60
MOST_OPEN = 50_000  # rows in memory; one is about 1 kB
OFFLINE = "batch"  # the route of lines of batch files
_KEY = ("tenant", "model", "route", "at", "writer")
_ADDED = (*COUNTS, "seconds")
_WRITTEN = (*_ADDED, "latency", "first_token")
_OUTCOMES = {"2xx": "answered", "429": "rejected", "5xx": "server_errors", GONE: "abandoned"}


@dataclass(slots=True)
class Counts(Answers):
    """One row in the making."""

    model: str
    route: str
    at: int  # epoch seconds, a multiple of STEP_SECONDS
    seconds: float = 0.0
    is_written: bool = False

    def add(self, seen: Seen, seconds: float) -> None:
        """Count one request."""
        self.is_written = False
        name = _OUTCOMES.get(seen.outcome, "client_errors")
        setattr(self, name, getattr(self, name) + 1)
        self.predictions += seen.predictions
        self.tokens_in += seen.tokens_in
        self.tokens_out += seen.tokens_out
        if name == "answered" and self.route != OFFLINE:
            self.seconds += seconds
            _tally(self.latency, seconds)
            if seen.first_token:
                _tally(self.first_token, seen.first_token)

    def row(self, tenant: Tenant, writer: str) -> ServedMinutes:
        """As the table keeps it, with everything counted so far."""
        counted = {name: getattr(self, name) for name in _WRITTEN}
        counted |= {"latency": list(self.latency), "first_token": list(self.first_token)}
        at = datetime.fromtimestamp(self.at, UTC)
        return ServedMinutes(
            tenant_id=tenant.pk, model=self.model, route=self.route, at=at, writer=writer, **counted
        )


class Served:
    """The open rows of this process. A row is written whole each time, so that a repeated write changes nothing."""

    def __init__(self) -> None:
        self._writer = secrets.token_hex(8)
        self._open: dict[object, dict[tuple[str, str, int], Counts]] = {}
        self._size = 0

    def note(
        self, tenant: Tenant, route: str, seen: Seen, seconds: float, *, now: float | None = None
    ) -> None:
        """Count one request for the tenant's model."""
        at = int((time.time() if now is None else now) // STEP_SECONDS * STEP_SECONDS)
        rows = self._open.setdefault(tenant.pk, {})
        counts = rows.get((seen.model, route, at))
        if counts is None:
            if self._size >= MOST_OPEN:
                METRICS.count("served_dropped")
                return
            self._size += 1
            counts = rows[seen.model, route, at] = Counts(seen.model, route, at)
        counts.add(seen, seconds)

    def changed(self, tenant: Tenant) -> list[ServedMinutes]:
        """The tenant's rows with something new; they count as written until they change again or `unwritten`."""
        fresh = [one for one in self._open.get(tenant.pk, {}).values() if not one.is_written]
        for one in fresh:
            one.is_written = True
        return [one.row(tenant, self._writer) for one in fresh]

    def unwritten(self, tenant: Tenant, rows: Iterable[ServedMinutes]) -> None:
        """The database refused these rows: they are offered again."""
        mine = self._open.get(tenant.pk, {})
        for row in rows:
            mine[row.model, row.route, int(row.at.timestamp())].is_written = False

    def tidy(self, *, now: float | None = None) -> None:
        """Forget the rows of earlier five minutes that are written: nothing is added to them any more."""
        current = int((time.time() if now is None else now) // STEP_SECONDS * STEP_SECONDS)
        kept = {}
        for tenant, rows in self._open.items():
            left = {key: one for key, one in rows.items() if not one.is_written or one.at >= current}
            if left:
                kept[tenant] = left
        self._open = kept
        self._size = sum(map(len, kept.values()))


def write_served(tenant: Tenant, rows: Sequence[ServedMinutes]) -> None:
    """Insert or replace; needs the tenant's scope."""
    ServedMinutes.objects.of(tenant).bulk_create(
        rows, update_conflicts=True, unique_fields=_KEY, update_fields=_WRITTEN
    )


def served_once(tenant: Tenant, route: str, seen: Seen, seconds: float) -> None:
    """Write one request's row at once, for a caller that is no gateway; needs the tenant's scope."""
    served = Served()
    served.note(tenant, route, seen, seconds)
    write_served(tenant, served.changed(tenant))


def served_offline(tenant: Tenant, lines: Iterable[Seen]) -> None:
    """Add what the lines of a batch file came to; how long each took is nobody's wait. Needs the tenant's scope.

    All slices add to the same rows: one for each of them would be thousands a day for the page to read.
    """
    served = Served()
    for seen in lines:
        if seen.tenant is not None:
            served.note(tenant, OFFLINE, seen, 0.0)
    for row in sorted(served.changed(tenant), key=lambda one: (one.model, one.at)):  # as other slices do
        place = {"model": row.model, "route": row.route, "at": row.at, "writer": OFFLINE}
        kept, _ = ServedMinutes.objects.of(tenant).get_or_create(**place, defaults={"tenant_id": tenant.pk})
        more = {name: F(name) + getattr(row, name) for name in _ADDED}
        ServedMinutes.objects.of(tenant).filter(pk=kept.pk).update(**more)


def _tally(counts: list[int], seconds: float) -> None:
    """Count one value in a histogram that is made when first needed."""
    if not counts:
        counts.extend([0] * (len(BOUNDS) + 1))
    counts[bisect_left(BOUNDS, seconds)] += 1
