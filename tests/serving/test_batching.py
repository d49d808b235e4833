"""Batches are fair between tenants, bounded in tokens, and leave out what nobody waits for."""

from __future__ import annotations

import asyncio

import pytest

from modeling.serving.batching import FairQueue, Row
from modeling.serving.wire import EngineRefusal


def row(cost: int = 10, deadline: float = 1e9) -> Row:
    return Row((0,) * cost, asyncio.get_running_loop().create_future(), deadline)


@pytest.mark.asyncio
async def test_it_works() -> None:
    queue: FairQueue[Row] = FairQueue(budget_tokens=100)
    rows = [row() for _ in range(3)]
    queue.put("acme", rows)
    assert queue.take(0.0) == rows
    assert queue.take(0.0) == []
    assert queue.waiting_tokens == 0


@pytest.mark.asyncio
async def test_tenants_take_turns() -> None:
    queue: FairQueue[Row] = FairQueue(budget_tokens=40)
    many, few = [row() for _ in range(100)], [row() for _ in range(2)]
    queue.put("acme", many)
    queue.put("globex", few)
    assert queue.take(0.0) == [many[0], few[0], many[1], few[1]]
    assert queue.take(0.0) == many[2:6]


@pytest.mark.asyncio
async def test_a_row_over_the_budget_still_runs_alone() -> None:
    queue: FairQueue[Row] = FairQueue(budget_tokens=40)
    long, short = row(500), row()
    queue.put("acme", [long, short])
    assert queue.take(0.0) == [long]
    assert queue.take(0.0) == [short]


@pytest.mark.asyncio
async def test_a_full_queue_says_busy_and_keeps_nothing_of_the_request() -> None:
    queue: FairQueue[Row] = FairQueue(max_waiting_tokens=100)
    queue.put("acme", [row(60)])
    with pytest.raises(EngineRefusal) as refusal:
        queue.put("globex", [row(20), row(30)])
    assert refusal.value.code == "busy"
    assert refusal.value.retry_after_seconds > 0
    assert queue.waiting_tokens == 60
    queue.put("globex", [row(40)])


@pytest.mark.asyncio
async def test_one_tenant_cannot_fill_the_queue_request_by_request() -> None:
    queue: FairQueue[Row] = FairQueue(max_waiting_tokens=100)
    queue.put("acme", [row(40)])
    with pytest.raises(EngineRefusal):
        queue.put("acme", [row(20)])
    queue.put("globex", [row(50)])


@pytest.mark.asyncio
async def test_rows_without_asker_or_time_cost_nothing() -> None:
    queue: FairQueue[Row] = FairQueue(budget_tokens=10)
    left, late, wanted = row(), row(deadline=5.0), row()
    queue.put("acme", [left, late, wanted])
    left.answer.cancel()
    assert queue.take(6.0) == [wanted]
    error = late.answer.exception()
    assert isinstance(error, EngineRefusal)
    assert error.code == "deadline"
