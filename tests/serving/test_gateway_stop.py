"""The gateway starts and stops at once, however often, and a stop loses no usage."""

from __future__ import annotations

import asyncio
import sys
import uuid

import pytest

from billing.models import UsageEvent
from modeling.serving import gateway_usage
from modeling.serving.gateway_usage import UsageBatches
from saas.lib.errors import Refusal
from tenants.models import Tenant
from tenants.scope import scope
from tests.serving.made import ROOT
from tests.serving.speaking import client, in_thread, lifespan

pytestmark = pytest.mark.asyncio


async def test_it_stops_while_it_still_connects() -> None:
    async with asyncio.timeout(20):
        for turn in range(25):  # redis-py can swallow a cancellation while it connects
            async with lifespan(), client("x") as http:
                assert (await http.post("/v1/embeddings", json={})).status_code == 401
                await asyncio.sleep(turn * 0.0005)


async def test_usage_is_written_once_at_the_stop(acme: Tenant) -> None:
    usage = UsageBatches()
    running = asyncio.create_task(usage.run())
    await asyncio.sleep(0)
    for _ in range(2):
        usage.add(acme, "predictions", 3, "req_one")  # the same request and kind: counted once
    usage.add(acme, "tokens", 5, "req_one")
    usage.add(acme, "tokens", 0, "req_two")
    usage.close()
    await asyncio.wait_for(running, 10)

    def rows() -> set[tuple[str, int]]:
        with scope(acme):
            return {(row.kind, int(row.quantity)) for row in UsageEvent.objects.of(acme)}

    assert await in_thread(rows) == {("predictions", 3), ("tokens", 5)}


async def test_it_loads_neither_torch_nor_the_tokenizers() -> None:
    code = (
        "import sys, django; django.setup(); import modeling.serving.gateway as _\n"
        "print(*sorted({'torch', 'transformers', 'tokenizers'} & set(sys.modules)))\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    assert output.split() == []


async def test_usage_that_cannot_be_written_is_kept_up_to_a_bound(
    acme: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway_usage, "MOST_WAITING", 3)
    usage = UsageBatches()
    wrong = Tenant(id=uuid.uuid4(), slug="gone", name="gone")  # a tenant that was erased meanwhile
    usage.add(wrong, "predictions", 1, "req_gone")
    usage.add(
        acme, "no such kind of usage, and far too long for its column", 1, "req_long"
    )  # refused by PostgreSQL
    usage.add(acme, "predictions", 1, "req_good")
    with pytest.raises(Refusal, match="cannot count"):
        usage.require_room()
    await usage.flush()
    assert usage.waiting == 2  # acme's lane waits as a whole; nobody is left to bill the other
    usage.require_room()
    await usage.flush()
    assert usage.waiting == 2
