"""Whose turn it is: the fair order of waiting jobs as a pure rule, and the queue played forward by it."""

from __future__ import annotations

import heapq
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

NEVER = float("-inf")


@dataclass(frozen=True)
class Waiting:
    """One job that waits: how long it will run, in seconds."""

    job_id: uuid.UUID
    seconds: float


@dataclass(frozen=True)
class Share:
    """One tenant at the dispatcher: jobs it runs, how many it may, when it was last served, its oldest job.

    Times are seconds on one clock; `last_served` is NEVER for a tenant that was not served within a day.
    """

    tenant_id: uuid.UUID
    cap: int
    running: int = 0
    last_served: float = NEVER
    oldest: float = 0.0

    @property
    def rank(self) -> tuple[float, float, float, str]:
        """The smallest is next: least running share, then longest unserved, then oldest job."""
        return (self.running / self.cap, self.last_served, self.oldest, str(self.tenant_id))


def in_turn(shares: Iterable[Share]) -> list[Share]:
    """Tenants that may run one more, the next first."""
    return sorted((one for one in shares if one.running < one.cap), key=lambda one: one.rank)


@dataclass(frozen=True)
class Place:
    """Where a job stands: 1 is next. `starts_in` seconds, None when no worker lives or its tenant may not train."""

    position: int
    starts_in: float | None


def places(
    queues: Mapping[uuid.UUID, Sequence[Waiting]],
    shares: Collection[Share],
    *,
    ends: Collection[tuple[float, uuid.UUID]],
    slots: int,
    wanted: Collection[uuid.UUID],
) -> dict[uuid.UUID, Place]:
    """Play the queue forward until all wanted jobs have started.

    `queues`: each tenant's waiting jobs in its own order. `ends`: (seconds from now, tenant) of every running job.
    Without a worker (`slots` 0) the order is that of one, and no time is given.
    """
    left = {tenant: list(reversed(jobs)) for tenant, jobs in queues.items() if jobs}
    line = _Line(shares, left)
    running = list(ends)
    heapq.heapify(running)
    free, now = max(slots, 1) - len(running), 0.0
    found: dict[uuid.UUID, Place] = {}
    missing, position = set(wanted), 0
    while missing and left:
        share = line.take() if free > 0 else None
        if share is not None:
            job = left[share.tenant_id].pop()
            if not left[share.tenant_id]:
                del left[share.tenant_id]
            position += 1
            if job.job_id in missing:
                missing.discard(job.job_id)
                found[job.job_id] = Place(position, now if slots else None)
            line.put(replace(share, running=share.running + 1, last_served=now))
            heapq.heappush(running, (now + job.seconds, share.tenant_id))
            free -= 1
        elif running:
            now, tenant = heapq.heappop(running)
            free += 1
            line.ended(tenant)
        else:
            break
    for jobs in left.values():  # their tenants may not train now
        for number, job in enumerate(reversed(jobs), 1):
            if job.job_id in missing:
                found[job.job_id] = Place(position + number, None)
    return found


class _Line:
    """The next of many tenants without sorting them all for each job: a heap whose outdated entries are passed over."""

    def __init__(self, shares: Iterable[Share], left: Mapping[uuid.UUID, Sequence[Waiting]]) -> None:
        self._left = left
        self._standing: dict[uuid.UUID, Share] = {}
        self._heap: list[tuple[tuple[float, float, float, str], uuid.UUID]] = []
        for share in shares:
            self.put(share)

    def put(self, share: Share) -> None:
        """A tenant's standing from now on."""
        self._standing[share.tenant_id] = share
        if share.tenant_id in self._left and share.running < share.cap:
            heapq.heappush(self._heap, (share.rank, share.tenant_id))

    def ended(self, tenant_id: uuid.UUID) -> None:
        """One job of a tenant has ended."""
        share = self._standing.get(tenant_id)
        if share is not None:
            self.put(replace(share, running=share.running - 1))

    def take(self) -> Share | None:
        """The tenant whose turn it is, of those that have a job left and room for it."""
        while self._heap:
            rank, tenant_id = heapq.heappop(self._heap)
            share = self._standing[tenant_id]
            if tenant_id in self._left and share.running < share.cap and share.rank == rank:
                return share
        return None
