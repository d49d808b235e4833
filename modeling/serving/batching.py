"""The waiting rows of one base: bounded, and taken round robin over tenants up to a token budget."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from modeling.serving.wire import EngineRefusal


class Waiting(Protocol):
    """What can wait: `answer` is done once nobody wants it any more, `cost` is in tokens."""

    answer: asyncio.Future[Any]
    deadline: float

    @property
    def cost(self) -> int: ...


Item = TypeVar("Item", bound=Waiting)


@dataclass(slots=True, eq=False)
class Row:
    """One text on its way through the encoder. `answer` resolves to a float32 numpy row, or is cancelled."""

    tokens: tuple[int, ...]
    answer: asyncio.Future[Any]
    deadline: float  # on the loop's clock
    lease: Any = None  # what the bank pinned for this row; None: the plain base
    wants_head: bool = False  # probabilities of its classifier, not the embedding

    @property
    def cost(self) -> int:
        """Tokens, the unit of the budget."""
        return len(self.tokens)


@dataclass
class FairQueue(Generic[Item]):
    """Waiting items by tenant, without a timer: a batch is whatever queued while the engine was busy."""

    budget_tokens: int = 1024
    max_waiting_tokens: int = 131_072
    max_tenant_share: float = 0.5
    _lanes: OrderedDict[str, deque[Item]] = field(default_factory=OrderedDict)
    _waiting: dict[str, int] = field(default_factory=dict)
    _total: int = 0
    _ready: asyncio.Event = field(default_factory=asyncio.Event)

    def __len__(self) -> int:
        return sum(len(lane) for lane in self._lanes.values())

    @property
    def waiting_tokens(self) -> int:
        """Tokens of all waiting items."""
        return self._total

    def put(self, tenant: str, items: Iterable[Item]) -> None:
        """Add one request's items, all or none; raises EngineRefusal `busy` when queue or tenant's share is full."""
        items = list(items)
        cost = sum(item.cost for item in items)
        waiting = self._waiting.get(tenant, 0)
        share = int(self.max_waiting_tokens * self.max_tenant_share)
        if self._total + cost > self.max_waiting_tokens or (waiting and waiting + cost > share):
            raise EngineRefusal("busy", "The model is busy. Try again shortly.", retry_after_seconds=1.0)
        if not items:
            return
        self._lanes.setdefault(tenant, deque()).extend(items)
        self._waiting[tenant] = waiting + cost
        self._total += cost
        self._ready.set()

    async def wait(self) -> None:
        """Return once at least one item waits."""
        await self._ready.wait()

    def take(self, now: float) -> list[Item]:
        """The next batch: one item per tenant in turn until the token budget is full; at least one if any lives."""
        batch: list[Item] = []
        spent = 0
        while (item := self._next(now)) is not None:
            if batch and spent + item.cost > self.budget_tokens:
                break
            self._pop()
            batch.append(item)
            spent += item.cost
        return batch

    def take_one(self, now: float) -> Item | None:
        """The next item of the tenant whose turn it is."""
        item = self._next(now)
        if item is not None:
            self._pop()
        return item

    def _next(self, now: float) -> Item | None:
        """The item in front; those whose asker left are dropped, those past their deadline are failed."""
        while self._lanes:
            item = next(iter(self._lanes.values()))[0]
            if not item.answer.done() and item.deadline > now:
                return item
            if not item.answer.done():
                item.answer.set_exception(
                    EngineRefusal("deadline", "The request's time ran out while it waited.")
                )
            self._pop()
        return None

    def _pop(self) -> None:
        """Take the item in front; its tenant goes to the back of the line."""
        tenant, lane = next(iter(self._lanes.items()))
        cost = lane.popleft().cost
        self._total -= cost
        self._waiting[tenant] -= cost
        if lane:
            self._lanes.move_to_end(tenant)
            return
        del self._lanes[tenant], self._waiting[tenant]
        if not self._lanes:
            self._ready.clear()
