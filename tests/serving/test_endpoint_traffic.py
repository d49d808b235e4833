"""Requests to an endpoint while its traffic is split, listened to by a shadow, and moved back and forth under load."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from billing import plans, queries
from billing.models import UsageEvent
from modeling.models import ShadowDay
from modeling.serving import gateway_canary
from modeling.serving.gateway_canary import Pair
from modeling.serving.gateway_metrics import Seen as RequestSeen
from modeling.serving.targets import Route, Target
from tenants import vault
from tenants.scope import scope
from tests.serving.made import EngineProcess, head_parts, item_parts
from tests.serving.speaking import client, in_thread, lifespan, make_version

pytestmark = pytest.mark.real_weights
MOVES = int(os.environ.get("ENDPOINT_MOVES", "3"))
CLIENTS = 8


@pytest.fixture(autouse=True)
def _engine(settings: Any, engine: EngineProcess) -> None:
    settings.ENGINE_SOCKET = engine.socket


@pytest.fixture
def versions(acme: Any) -> list[Any]:
    """Two classifiers of the same weights and a third of others, with the same labels."""
    tensors, config = head_parts(5, 1)
    other = head_parts(5, 7)[0]
    return [
        make_version(acme, parts, config, suffix=f"v{n}")
        for n, parts in enumerate((tensors, tensors, other), 1)
    ]


@dataclass
class Seen:
    """What clients saw: (start, end, status, version) of each request."""

    rows: list[tuple[float, float, int, str]] = field(default_factory=list)

    async def ask(self, http: Any, **more: Any) -> Any:
        start = time.monotonic()
        response = await http.post("/v1/classify", json={"model": "prod", "inputs": ["a fracture"], **more})
        model = response.json().get("model", "")
        self.rows.append((start, time.monotonic(), response.status_code, model))
        return response


async def change(api: Any, path: str, body: Any = None) -> dict[str, Any]:
    """A call of the management API from beside the gateway's loop."""
    answer = await in_thread(api.post, path, body)
    assert answer.status_code == 200, answer.content
    found: dict[str, Any] = answer.json()
    return found


def test_a_canary_gets_its_share() -> None:
    one, two = Target("one", "b", "t"), Target("two", "b", "t")
    for percent in (1, 30, 99):
        route = Route(one, canary=two, canary_percent=percent)
        share = sum(route.pick() is two for _ in range(20_000)) / 200
        assert abs(share - percent) < 3  # eight standard deviations at least
    assert Route(one).pick() is one


@pytest.mark.asyncio
async def test_a_split_answers_with_both_and_says_who(api: Any, versions: list[Any]) -> None:
    one, two, _ = versions
    await change(api, "/v1/endpoints", {"name": "prod", "model": one.name})
    await change(api, "/v1/endpoints/prod", {"canary": {"model": two.name, "percent": 50}})
    seen = Seen()
    async with lifespan(), client(api.key) as http:
        answers = [await seen.ask(http) for _ in range(60)]
        direct = await http.post("/v1/classify", json={"model": one.name, "inputs": ["a fracture"]})
    assert {row[3] for row in seen.rows} == {one.name, two.name}
    assert {answer.headers["x-cloister-endpoint"] for answer in answers} == {"prod"}
    assert "x-cloister-endpoint" not in direct.headers


@pytest.mark.asyncio
async def test_moves_under_load_drop_nothing_and_hold_at_once(
    api: Any, versions: list[Any], proof: Any, monkeypatch: Any
) -> None:
    free = dataclasses.replace(plans.FREE, requests_per_minute=10**8, predictions=10**8)
    monkeypatch.setattr(queries, "FREE", free)
    started = time.monotonic()
    one, _, three = versions
    await change(api, "/v1/endpoints", {"name": "prod", "model": one.name})
    seen, stop = Seen(), asyncio.Event()
    returned: list[tuple[float, str]] = []

    async def hammer(http: Any) -> None:
        while not stop.is_set():
            await seen.ask(http)

    async with lifespan(), client(api.key) as http:
        clients = [asyncio.create_task(hammer(http)) for _ in range(CLIENTS)]
        for _ in range(MOVES):
            await change(api, "/v1/endpoints", {"name": "prod", "model": three.name})
            returned.append((time.monotonic(), three.name))
            await asyncio.sleep(0.2)
            await change(api, "/v1/endpoints/prod/rollback")
            returned.append((time.monotonic(), one.name))
            await asyncio.sleep(0.2)
        stop.set()
        await asyncio.gather(*clients)
    assert {status for _, _, status, _ in seen.rows} == {200}
    assert {model for *_, model in seen.rows} == {one.name, three.name}
    late = _latest_stale(seen, returned)
    assert late < 10
    found = f"{len(seen.rows):,} requests, {2 * MOVES} moves, 0 failed; wrong version at most {1000 * late:.0f} ms"
    proof.found("Endpoint moved under load", found, seconds=time.monotonic() - started)


def _latest_stale(seen: Seen, returned: list[tuple[float, str]]) -> float:
    """Seconds from a move's return to the start of the last request that the other version still answered."""
    worst = 0.0
    for (at, now), (until, _) in zip(returned, [*returned[1:], (float("inf"), "")], strict=True):
        worst = max(
            [
                worst,
                *(
                    start - at
                    for start, end, _, model in seen.rows
                    if at <= start and end < until and model != now
                ),
            ]
        )
    return worst


def test_an_answer_by_the_wrong_version_would_be_seen() -> None:
    moves = [(10.0, "new"), (20.0, "old")]
    good = [(9.0, 10.5, 200, "old"), (10.1, 11.0, 200, "new"), (20.5, 21.0, 200, "old")]
    assert _latest_stale(Seen(good), moves) == 0
    late = [*good, (12.5, 13.0, 200, "old"), (21.0, 21.5, 200, "old")]
    assert _latest_stale(Seen(late), moves) == 2.5


def used(tenant: Any) -> list[tuple[str, int]]:
    """What was billed, request by request."""
    with scope(tenant):
        rows = UsageEvent.objects.of(tenant).values_list("kind", "quantity")
        return [(kind, int(quantity)) for kind, quantity in rows]


async def shadow_row(acme: Any, shadow: Any, requests: int, *, failed: int = 0) -> dict[str, Any]:
    """The shadow's counts once so many were written."""

    def read() -> list[dict[str, Any]]:
        with scope(acme):
            return list(ShadowDay.objects.of(acme).filter(shadow=shadow).values())

    for _ in range(60):
        rows = await in_thread(read)
        if rows and rows[-1]["requests"] + rows[-1]["failed"] >= requests + failed:
            return rows[-1]
        await asyncio.sleep(0.1)
    raise AssertionError(f"the shadow's counts did not come: {rows}")


@pytest.mark.asyncio
@pytest.mark.parametrize(("which", "agreed"), [(1, 6), (2, None)])
async def test_a_shadow_is_compared_and_not_billed(
    api: Any, acme: Any, versions: list[Any], which: int, agreed: int | None
) -> None:
    """The same weights agree on every input; other weights do not."""
    await change(api, "/v1/endpoints", {"name": "prod", "model": versions[0].name})
    await change(api, "/v1/endpoints/prod", {"shadow": versions[which].name})
    seen = Seen()
    async with lifespan(), client(api.key) as http:
        for _ in range(3):
            await seen.ask(http, inputs=["a fracture of the wrist", "the parcel came late"])
            await asyncio.sleep(0.2)  # one at a time
        row = await shadow_row(acme, versions[which], 3)
    assert (row["requests"], row["compared"], row["failed"], row["dropped"]) == (3, 6, 0, 0)
    assert row["agreed"] == agreed if agreed is not None else row["agreed"] < 6
    assert sum(row["served_latency"]) == sum(row["shadow_latency"]) == 3
    assert {model for *_, model in seen.rows} == {versions[0].name}
    assert await in_thread(used, acme) == [("predictions", 2)] * 3


@pytest.mark.asyncio
async def test_a_shadow_that_fails_or_finds_no_room_harms_nobody(
    api: Any, acme: Any, versions: list[Any]
) -> None:
    await change(api, "/v1/endpoints", {"name": "prod", "model": versions[0].name})
    await change(api, "/v1/endpoints/prod", {"shadow": versions[1].name})
    seen = Seen()
    async with lifespan(), client(api.key) as http:
        await asyncio.gather(*(seen.ask(http) for _ in range(40)))
        row = await shadow_row(acme, versions[1], 1)
        assert row["requests"] + row["dropped"] == 40
        assert row["dropped"] > 0  # one at a time of an endpoint
        await in_thread(_break, versions[2])
        await change(api, "/v1/endpoints/prod", {"shadow": versions[2].name})
        await seen.ask(http)
        broken = await shadow_row(acme, versions[2], 0, failed=1)
    assert (broken["requests"], broken["failed"]) == (0, 1)
    assert {status for _, _, status, _ in seen.rows} == {200}


@pytest.mark.asyncio
async def test_a_recommenders_shadow_is_compared_by_its_first_item(api: Any, acme: Any) -> None:
    shops = [await in_thread(make_version, acme, *item_parts(20, 3)) for _ in range(2)]
    await change(api, "/v1/endpoints", {"name": "prod", "model": shops[0].name})
    await change(api, "/v1/endpoints/prod", {"shadow": shops[1].name})
    async with lifespan(), client(api.key) as http:
        body = {"model": "prod", "history": ["item-3"], "k": 4}
        assert (await http.post("/v1/recommend", json=body)).status_code == 200
        row = await shadow_row(acme, shops[1], 1)
    assert (row["compared"], row["agreed"]) == (1, 1)


def test_a_canary_is_judged_beside_its_version() -> None:
    def pair(canary: str, version: str) -> Pair:
        made = Pair()
        made.canary.extend(one == "x" for one in canary)
        made.version.extend(one == "x" for one in version)
        return made

    assert pair("xxxxx.....", "." * 40).is_worse
    assert pair("x" * 10, "").is_worse
    assert not pair("xxxx......", "." * 40).is_worse  # four errors may be chance
    assert not pair("xxxxx....", "." * 40).is_worse  # too few answers
    assert not pair("xxxxx.....", "x...." * 8).is_worse  # the version fails, too
    assert not pair("x" * 5 + "." * 45, "." * 50).is_worse  # long past


def test_requests_that_are_left_do_not_pile_up_beside_a_canary(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_canary, "MOST_OPEN", 50)
    target = Target("ft:x", "minilm-l6", "classification", version="v")
    route = Route(target, canary=dataclasses.replace(target, version="c"), canary_percent=50, endpoint="e")
    canaries = gateway_canary.Canaries()
    for _ in range(200):
        canaries.watch(RequestSeen(), uuid.uuid4(), route, target)
    assert len(canaries._open) == 50


@pytest.mark.asyncio
async def test_a_failing_canary_is_taken_out(api: Any, acme: Any, versions: list[Any]) -> None:
    one, two, _ = versions
    await change(api, "/v1/endpoints", {"name": "prod", "model": one.name})
    await change(api, "/v1/endpoints/prod", {"canary": {"model": two.name, "percent": 50}})
    await in_thread(_break, two)
    await in_thread(_forget, acme, two)
    seen = Seen()
    async with lifespan(), client(api.key) as http:
        for _ in range(60):
            await seen.ask(http)
        await asyncio.sleep(1.5)
        after = [await seen.ask(http) for _ in range(20)]
    assert {status for _, _, status, _ in seen.rows} == {200, 503}
    assert {answer.status_code for answer in after} == {200}
    newest = (await in_thread(api.get, "/v1/endpoints/prod/history")).json()["data"][0]
    assert (newest["kind"], newest["canary"]) == ("split", None)
    assert newest["actor"].startswith("Cloister: ")
    assert newest["actor"].endswith("answers failed")


def _break(version: Any) -> None:
    """Spoil the end of a version's sealed bytes."""
    file = Path(vault.location(version.object))
    file.write_bytes(file.read_bytes()[:-40] + bytes(40))


def _forget(tenant: Any, version: Any) -> None:
    """The engine forgets a version, as after a restart."""
    from asgiref.sync import async_to_sync

    from modeling.serving.engines import ask_engines

    async_to_sync(ask_engines)("purge", tenant=str(tenant.pk), seconds=5.0, version=str(version.pk))
