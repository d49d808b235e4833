"""Clients that leave in the middle of a stream: the engine stops within a token, and the bill is what was sent."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from billing.models import UsageEvent
from modeling.serving.wire import EngineRefusal
from tenants.models import Tenant
from tenants.scope import scope
from tests.modeling.test_jobs_start import pay_for
from tests.proofs.record import Proof
from tests.serving.leaving import Left, gateway_process, leave
from tests.serving.made import EngineProcess
from tests.serving.tiny_talks import write_tiny

pytestmark = [pytest.mark.slow, pytest.mark.real_weights]
DISCONNECTS = int(os.environ.get("DISCONNECTS", "1000"))
AT_ONCE = 64
BASE = "smollm2-135m"
STORY = [{"role": "user", "content": "Tell me a long story about a lighthouse."}]


@dataclass(frozen=True)
class Counted:
    """The engine's counts."""

    active: int
    tokens: int
    unheard: int


@pytest.fixture(scope="module")
def tiny_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    models = write_tiny(tmp_path_factory.mktemp("models"))
    process = EngineProcess(tmp_path_factory.mktemp("tiny") / "engine.sock", models=models)
    try:
        answers(process)
        yield process
    finally:
        process.stop()


def answers(engine: EngineProcess) -> None:
    """Return once the engine listens."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            engine.ask("health")
            return
        except EngineRefusal:
            time.sleep(0.05)
    raise AssertionError("the engine did not start")


def counted(engine: EngineProcess) -> Counted:
    found = engine.ask("health")["counts"].get(BASE, {"active": 0, "tokens": 0, "unheard": 0})
    return Counted(found["active"], found["tokens"], found["unheard"])


async def leave_all(path: Path, key: str, count: int) -> list[Left]:
    """So many clients, some at a time; each leaves after 1 to 20 events, every third by a cut."""
    chance, gate = random.Random(7), asyncio.Semaphore(AT_ONCE)
    body = {"model": BASE, "messages": STORY, "max_tokens": 400, "temperature": 1.0}

    async def one(number: int) -> Left:
        after = chance.randint(1, 20)
        async with gate:
            return await leave(path, key, body | {"seed": number}, after=after, is_cut=number % 3 == 0)

    return await asyncio.gather(*(one(number) for number in range(count)))


def bills(tenant: Tenant) -> dict[str, int]:
    """Billed tokens by request."""
    with scope(tenant):
        rows = UsageEvent.objects.of(tenant).filter(kind="tokens").values_list("request_id", "quantity")
        return {request_id: int(quantity) for request_id, quantity in rows}


def prompt_tokens(engine: EngineProcess) -> int:
    """Tokens of the story's prompt."""
    found = engine.ask("chat", tenant="t", base=BASE, messages=STORY, max_tokens=1, temperature=0.0)
    return int(found["prompt_tokens"])


def idle(engine: EngineProcess) -> Counted:
    """The counts once nothing is under way."""
    until = time.monotonic() + 5
    while (now := counted(engine)).active and time.monotonic() < until:
        time.sleep(0.02)
    return now


def check(left: list[Left], billed: dict[str, int], prompt: int) -> int:
    """Every bill against what its client was sent; returns how many were equal to the token."""
    assert set(billed) <= {one.request_id for one in left}
    equal = 0
    for one in left:
        bill = billed.get(one.request_id, 0)
        due = prompt + one.tokens if one.tokens else 0
        if one.was_cut:  # what lay in the socket then was sent, and not read
            assert bill >= due, (one, bill)
        else:
            assert bill == due or one.is_whole, (one, bill)
            equal += bill == due
    return equal


@pytest.mark.parametrize("base", ["tiny", "real"])
def test_the_engine_stops_and_the_bill_is_what_was_sent(
    request: pytest.FixtureRequest, people: Any, acme: Tenant, tmp_path: Path, proof: Proof, base: str
) -> None:
    engine: EngineProcess = request.getfixturevalue("tiny_engine" if base == "tiny" else "engine")
    count = DISCONNECTS if base == "tiny" else max(DISCONNECTS // 50, 2)
    pay_for(acme, "business")
    key = people.key(acme, "predict")
    prompt, began = prompt_tokens(engine), time.monotonic()
    before = idle(engine)
    with gateway_process(tmp_path, engine.socket) as path:
        left = asyncio.run(leave_all(path, key, count))
        after = idle(engine)
    assert after.active == 0
    made = after.tokens - before.tokens
    unheard = after.unheard - before.unheard
    billed = bills(acme)
    paid = sum(billed.values()) - prompt * len(billed)
    whole = sum(one.is_whole for one in left)
    equal = check(left, billed, prompt)
    assert unheard <= count, "at most one token each after the engine heard of it"
    assert made >= paid
    assert whole < count / 4, "most must leave in the middle"
    found = (
        f"{count} clients left ({sum(one.was_cut for one in left)} by a cut, {whole} as their answer ended): no "
        f"conversation went on, {made:,} tokens made of {400 * count:,} asked for, {paid:,} of them sent, "
        f"{unheard} made after a leave; "
        f"{equal} of {sum(not one.was_cut for one in left)} bills equal to what was sent, the others' at least that"
    )
    name = "clients leave a chat stream" + (", smollm2" if base == "real" else "")
    proof.found(name, found, seconds=time.monotonic() - began)
