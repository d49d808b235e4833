"""kill -9 of the engine under load: every request is answered or fails clearly in time, and is counted as answered."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from billing.models import UsageEvent
from modeling.serving.gateway_call import SECONDS
from modeling.serving.gateway_chat import CHAT_SECONDS
from tenants.models import Tenant
from tenants.scope import scope
from tests.modeling.test_jobs_start import pay_for
from tests.proofs.record import Proof
from tests.serving.killing import Asked, Keeper, Killed, Load
from tests.serving.made import head_parts
from tests.serving.speaking import client, in_thread, lifespan, make_version

pytestmark = [pytest.mark.slow, pytest.mark.real_weights, pytest.mark.asyncio]
KILLS = int(os.environ.get("ENGINE_KILLS", "50"))
CHAT_KILLS = max(1, KILLS // 10)
CLIENTS = 12
ALLOWED = {"engine_unavailable", "timeout", "engine_busy"}  # how a request may fail when its engine is killed
STORY = [{"role": "user", "content": "Tell me a long story about a lighthouse."}]


@pytest.fixture
def key(people: Any, acme: Tenant) -> str:
    pay_for(acme, "business")
    secret: str = people.key(acme, "predict")
    return secret


def billed(tenant: Tenant, kind: str) -> dict[str, int]:
    """Metered quantity by request id."""
    with scope(tenant):
        rows = UsageEvent.objects.of(tenant).filter(kind=kind).values_list("request_id", "quantity")
        return {request_id: int(quantity) for request_id, quantity in rows}


async def under_kills(
    key: str, keeper: Keeper, kills: int, works: list[tuple[str, dict[str, Any]]]
) -> Killed:
    """Run the clients, kill the engine so often, let the last requests end."""
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each request otherwise
    chance = random.Random(5)
    async with keeper.running(), lifespan(), client(key) as http:
        load = Load(http, keeper)
        clients = [asyncio.create_task(load.ask(path, body)) for path, body in works]
        for _ in range(kills):
            await load.kill(chance)
        load.is_over = True
        await asyncio.gather(*clients)
    return load.found


def check(found: Killed, deadline: float) -> Counter[str]:
    """No request hung, each was answered or failed clearly; how many of each."""
    ends = Counter("answered" if one.is_whole else one.error for one in found.asked)
    assert set(ends) <= ALLOWED | {"answered"}, ends
    assert ends["answered"] > len(found.outages)
    assert min(found.under_way) >= 1
    assert max(one.seconds for one in found.asked) <= deadline + 1.0
    return ends


def said(found: Killed, ends: Counter[str]) -> str:
    """The proof's words."""
    failed = sum(ends.values()) - ends["answered"]
    return (
        f"{len(found.outages)} kills with {statistics.mean(found.under_way):.0f} requests under way each: "
        f"{len(found.asked)} asked, {ends['answered']} answered, {failed} failed clearly, 0 hung "
        f"(longest {max(one.seconds for one in found.asked):.1f} s); from kill to the next answer "
        f"{statistics.median(found.outages):.1f} s (median), {max(found.outages):.1f} s (longest)"
    )


async def test_classify(key: str, acme: Tenant, settings: Any, tmp_path: Path, proof: Proof) -> None:
    begun = time.monotonic()
    version = await in_thread(make_version, acme, *head_parts(5, 1))
    keeper = Keeper(tmp_path)
    settings.ENGINE_SOCKET = keeper.socket
    body = {"model": version.name, "inputs": ["a fracture", "a long text " * 40]}
    found = await under_kills(key, keeper, KILLS, [("/v1/classify", body)] * CLIENTS)
    ends = check(found, SECONDS)
    rows = await in_thread(billed, acme, "predictions")
    assert rows == {one.request_id: 2 for one in found.asked if one.is_whole}
    proof.found(
        "kill -9 of the engine under classification", said(found, ends), seconds=time.monotonic() - begun
    )


async def test_chat(key: str, acme: Tenant, settings: Any, tmp_path: Path, proof: Proof) -> None:
    begun = time.monotonic()
    keeper = Keeper(tmp_path)
    settings.ENGINE_SOCKET = keeper.socket
    whole = {"model": "smollm2-135m", "messages": STORY, "max_tokens": 12}
    stream = whole | {"stream": True, "stream_options": {"include_usage": True}}
    works = [("/v1/chat/completions", body) for body in (whole, stream)] * (CLIENTS // 2)
    found = await under_kills(key, keeper, CHAT_KILLS, works)
    ends = check(found, CHAT_SECONDS)
    rows = await in_thread(billed, acme, "tokens")
    for one in found.asked:
        _check_bill(one, rows.pop(one.request_id, 0))
    assert rows == {}
    proof.found("kill -9 of the engine under chat", said(found, ends), seconds=time.monotonic() - begun)


def _check_bill(one: Asked, tokens: int) -> None:
    """A whole answer costs what its usage says; a broken stream what came of it; what failed at once nothing."""
    if one.is_whole:
        assert tokens == one.tokens > 0
    elif one.pieces:
        assert tokens >= one.pieces
    else:
        assert tokens == 0
