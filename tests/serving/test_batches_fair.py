"""Batches among themselves and beside others: turns, leases, memory, and a tenant that is suspended in the middle."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from modeling.actions import batch_ending, batch_running
from modeling.serving import offline
from modeling.serving.gateway_calls import CALLS
from tenants import actions
from tenants.audit import SYSTEM
from tenants.models import Tenant
from tests.serving.batching import EMBED, change, jsonl, request_line, row, run_all, started
from tests.serving.speaking import in_thread
from tests.serving.test_batches import _engine, claimed, tiny_engine

__all__ = ["_engine", "tiny_engine"]  # fixtures


def test_a_slice_ends_when_its_tenant_is_suspended(
    api: Any, acme: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its models were loaded again, just after the engine forgot them."""
    embed = CALLS[EMBED]
    asked: list[int] = []

    async def suspending(call: Any, fields: Any) -> None:
        if not asked:
            await in_thread(lambda: actions.suspend_tenant(acme, reason="review", actor=SYSTEM))
            await asyncio.sleep(0.5)
        asked.append(1)
        await embed(call, fields)

    monkeypatch.setattr(offline, "AT_ONCE", 1)
    batch_id = started(api, jsonl([request_line(number) for number in range(64)]))
    assert batch_running.run_next()
    monkeypatch.setitem(CALLS, EMBED, suspending)
    assert batch_running.run_next()
    assert (len(asked), row(acme, batch_id).completed) == (1, 1)
    assert row(acme, batch_id).failed == 0


def test_one_new_batch_after_another_is_no_way_past_the_others(
    api: Any, globex_api: Any, acme: Tenant, globex: Tenant
) -> None:
    """A file with an error ends at its first turn; the next one of the same tenant waits for others' turns."""
    theirs = started(globex_api, jsonl([request_line(number) for number in range(3)]))
    assert batch_running.run_next()
    mine = started(api, b"{no\n")
    for _number in range(8):
        if row(acme, mine).state == "failed":
            mine = started(api, b"{no\n")
        assert batch_running.run_next()
    assert row(globex, theirs).completed == 3


def test_the_lease_is_kept_while_the_files_are_written(
    api: Any, acme: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_running, "SLICE_LINES", 1)
    monkeypatch.setattr(offline, "AT_ONCE", 1)
    monkeypatch.setattr(batch_ending, "RENEW_SECONDS", 0.0)
    batch_id = started(api, jsonl([request_line(number) for number in range(3)]))
    while row(acme, batch_id).state != "finalizing":
        assert batch_running.run_next()
    lease = claimed()
    soon = timezone.now() + timedelta(seconds=5)
    change(acme, batch_id, lease_until=soon)
    held: list[Any] = []
    copy = batch_ending._copy

    def watched(*arguments: Any) -> None:
        held.append(row(acme, batch_id).lease_until)
        copy(*arguments)

    monkeypatch.setattr(batch_ending, "_copy", watched)
    batch_ending.finish(lease)
    assert held[0] == soon
    assert all(one > soon + timedelta(seconds=30) for one in held[1:])
    assert len(held) == 3
    assert row(acme, batch_id).state == "completed"


def test_large_lines_are_in_memory_one_after_another(
    api: Any, acme: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_now, most, embed = [0], [0], CALLS[EMBED]

    async def watched(call: Any, fields: Any) -> None:
        open_now[0] += 1
        most[0] = max(most[0], open_now[0])
        try:
            await embed(call, fields)
        finally:
            open_now[0] -= 1

    monkeypatch.setitem(CALLS, EMBED, watched)
    large = {"model": "minilm-l6", "input": ["word1 " * 25] * 2_048}
    batch_id = started(api, jsonl([request_line(number, large) for number in range(3)]))
    run_all()
    assert (row(acme, batch_id).completed, most[0]) == (3, 1)
