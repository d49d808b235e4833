"""Requests find their engine: by base, spread over replicas, through a restart; a purge reaches all."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from modeling.serving import wire
from modeling.serving.addresses import (
    ALL,
    BadAddress,
    OpenAIAddress,
    TlsAddress,
    UnixAddress,
    parse_places,
    settings_places,
)
from modeling.serving.client import EngineClient
from modeling.serving.connections import Hub
from modeling.serving.engines import OVERLOAD, Engines, _choice, _order, _Replica
from modeling.serving.runners import Runners
from modeling.serving.wire import EngineRefusal, Kind
from tests.serving.made import Artifacts, Made

pytestmark = pytest.mark.asyncio


@asynccontextmanager
async def listening(path: Path, models: Path) -> AsyncIterator[Runners]:
    """An engine of this process: its real hub and runners on a socket, no base model installed."""
    runners = Runners(models)
    try:
        async with reachable(runners, path):
            yield runners
    finally:
        await runners.close()


@asynccontextmanager
async def reachable(runners: Runners, path: Path) -> AsyncIterator[None]:
    """Connections for these runners; at the end they break, and what is in memory stays."""
    hub = Hub(runners)
    server = await asyncio.start_unix_server(hub.accept, path)
    try:
        yield
    finally:
        server.close()
        await hub.drain(0)


def engines(places: dict[str, tuple[Path, ...]], *, patience: float = 8.0) -> Engines:
    return Engines(
        {base: tuple(UnixAddress(path) for path in paths) for base, paths in places.items()},
        patience=patience,
    )


async def recommended(asker: Engines, made: Made, base: str = "minilm-l6") -> list[Any]:
    answer = await asker.ask(
        "recommend", tenant=made.tenant, seconds=10.0, base=base, artifact=made.body, history=["item-1"], k=3
    )
    return list(answer["items"])


async def test_the_setting() -> None:
    text = (
        "minilm-l6=unix:/run/a.sock, minilm-l6=tls://engine.internal:7300,"
        "smollm2-135m=openai+http://127.0.0.1:8000/v1?model=smol&adapters=/dev/shm/cloister"
    )
    chat = OpenAIAddress("http://127.0.0.1:8000/v1", "smol", Path("/dev/shm/cloister"))
    encoder = (UnixAddress(Path("/run/a.sock")), TlsAddress("engine.internal", 7300))
    assert parse_places(text) == {"minilm-l6": encoder, "smollm2-135m": (chat,)}
    assert parse_places('{"minilm-l6": ["unix:/a", "unix:/b"], "*": "unix:/c"}')[ALL] == (
        UnixAddress(Path("/c")),
    )
    for wrong in ("minilm-l6", "a=tcp://host:1", "a=tls://host", "a=http://host/v1", "{", "a=tls://h:x"):
        with pytest.raises(BadAddress):
            parse_places(wrong)
    socket = Path("/run/engine.sock")
    assert settings_places("", socket, False) == {ALL: (UnixAddress(socket),)}
    split = settings_places("smollm2-135m=unix:/other", socket, True)
    assert split["minilm-l6"] == split[ALL] == (UnixAddress(Path("/run/engine-minilm-l6.sock")),)
    assert split["smollm2-135m"] == (UnixAddress(Path("/other")),)


async def test_each_base_has_its_engine_and_a_purge_reaches_all(tmp_path: Path) -> None:
    made = Artifacts(tmp_path).items()
    one, other = tmp_path / "one", tmp_path / "other"
    asker = engines({"minilm-l6": (one,), ALL: (other,)})
    async with listening(one, tmp_path) as first, listening(other, tmp_path) as second:
        assert len(await recommended(asker, made)) == 3
        assert (first.store.loads, second.store.loads) == (1, 0)
        await recommended(asker, made, base="another")
        assert (first.store.loads, second.store.loads) == (1, 1)
        assert await asker.ask("purge", tenant=made.tenant, seconds=5.0, version=None) == {"purged": 2}
        assert await asker.missing() == []
        await asker.close()
    assert await asker.missing() == [ALL, "minilm-l6"]


async def test_a_warmed_version_is_in_memory_before_anybody_asks(tmp_path: Path) -> None:
    made, stolen = Artifacts(tmp_path).items(), Artifacts(tmp_path).items("globex")
    socket = tmp_path / "engine.sock"
    asker = engines({ALL: (socket,)})
    async with listening(socket, tmp_path) as runners:
        warm = {"op": "warm", "seconds": 5.0, "base": "minilm-l6"}
        assert await asker.ask(**warm, tenant=made.tenant, artifact=made.body) == {}
        assert runners.store.loads == 1
        await recommended(asker, made)
        assert runners.store.loads == 1
        with pytest.raises(EngineRefusal) as refusal:
            await asker.ask(**warm, tenant=made.tenant, artifact=stolen.body)
        assert refusal.value.code == "bad_artifact"
        (counted,) = (await asker.snapshots(5.0)).values()
        assert counted
        await asker.close()


async def test_an_engine_that_was_out_of_reach_forgets_before_it_answers(tmp_path: Path) -> None:
    made, other = Artifacts(tmp_path).items(), Artifacts(tmp_path).items("globex")
    socket, runners = tmp_path / "engine.sock", Runners(tmp_path)
    asker = engines({ALL: (socket,)}, patience=0.2)
    async with reachable(runners, socket):
        await recommended(asker, made)
    assert runners.store.size_bytes
    with pytest.raises(EngineRefusal):
        await asker.ask("purge", tenant=made.tenant, seconds=1.0, version=None)
    async with reachable(runners, socket):
        assert (await asker.ask("health", tenant="", seconds=5.0))["store_bytes"] == 0
        await recommended(asker, other)
        assert await asker.ask("purge", tenant="globex", seconds=5.0, version=None) == {"purged": 1}
        await asker.close()
    await runners.close()


async def test_an_engine_that_comes_back_is_a_delay(tmp_path: Path) -> None:
    made = Artifacts(tmp_path).items()
    socket = tmp_path / "engine.sock"
    asker = engines({ALL: (socket,)})
    async with listening(socket, tmp_path):
        before = await recommended(asker, made)
    waiting = [asyncio.create_task(recommended(asker, made)) for _ in range(20)]
    await asyncio.sleep(0.4)
    assert not any(task.done() for task in waiting)
    async with listening(socket, tmp_path):
        assert await asyncio.gather(*waiting) == [before] * 20
        await asker.close()


async def test_an_engine_that_stays_away_is_a_refusal_in_time(tmp_path: Path) -> None:
    for patience, seconds in ((0.3, 10.0), (8.0, 0.3)):
        asker, begun = engines({ALL: (tmp_path / "nobody",)}, patience=patience), time.monotonic()
        with pytest.raises(EngineRefusal) as refusal:
            await asker.ask("health", tenant="", seconds=seconds)
        assert refusal.value.code == "unavailable"
        assert time.monotonic() - begun < 1.5
        await asker.close()


async def test_another_replica_answers_at_once(tmp_path: Path) -> None:
    alive, dead = tmp_path / "alive", tmp_path / "dead"
    asker = engines({"minilm-l6": (alive, dead)})
    async with listening(alive, tmp_path) as runners:
        for seed in range(12):  # half of them would go to the other
            made = Artifacts(tmp_path).items(seed=seed)
            assert len(await recommended(asker, made)) == 3
        assert runners.store.loads == 12
        assert await asker.missing() == []
        await asker.close()


@asynccontextmanager
async def breaking(path: Path, *, parts: int) -> AsyncIterator[list[int]]:
    """A program that takes a request, sends so many parts and breaks the connection; counts what it took."""
    taken: list[int] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        decoder = wire.Decoder()
        writer.write(wire.hello())
        while data := await reader.read(65_536):
            for frame in decoder.feed(data):
                if frame.kind is Kind.ASK:
                    taken.append(frame.id)
                    for _ in range(parts):
                        writer.write(wire.encode(wire.Frame(Kind.PART, frame.id, {"text": "a"})))
                    writer.close()
                    return

    server = await asyncio.start_unix_server(accept, path)
    try:
        yield taken
    finally:
        server.close()


@pytest.mark.parametrize(("parts", "at_once", "times"), [(0, False, 3), (2, False, 1), (2, True, 3)])
async def test_who_kills_engines_is_not_sent_for_ever(
    tmp_path: Path, parts: int, at_once: bool, times: int
) -> None:
    asker, seen = engines({ALL: (tmp_path / "engine.sock",)}), []
    async with breaking(tmp_path / "engine.sock", parts=parts) as taken:
        with pytest.raises(EngineRefusal) as refusal:
            async for kind, _ in asker.stream("chat", tenant="acme", seconds=10.0, at_once=at_once):
                seen.append(kind)
        await asker.close()
    assert refusal.value.code == "unavailable"
    assert len(taken) == times
    assert seen == ([] if at_once else [Kind.PART] * parts)


async def test_the_deadline_goes_with_the_request(tmp_path: Path) -> None:
    socket = tmp_path / "engine.sock"

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(silent, socket)  # a program that hangs
    asker, begun = engines({ALL: (socket,)}), time.monotonic()
    with pytest.raises(EngineRefusal) as refusal:
        await asker.ask("health", tenant="", seconds=0.2)
    assert refusal.value.code == "deadline"
    assert time.monotonic() - begun < 1.2  # the deadline and a second
    await asker.close()
    server.close()


def replicas(count: int) -> list[_Replica]:
    places = [TlsAddress(f"host-{n}", 7300) for n in range(count)]
    return [_Replica(place, EngineClient(place)) for place in places]


def ask_of(version: str) -> dict[str, Any]:
    return {"base": "minilm-l6", "artifact": {"version": version}}


async def test_rendezvous_moves_few_and_bounds_the_load() -> None:
    places = replicas(5)
    firsts = {n: _order(places, ask_of(f"v{n}"))[0] for n in range(2000)}
    assert all(300 < count < 500 for count in Counter(str(one.address) for one in firsts.values()).values())
    without = [one for one in places if one is not places[2]]
    for n, first in firsts.items():  # those of the one that left spread out, all others stay
        if first is not places[2]:
            assert _order(without, ask_of(f"v{n}"))[0] is first
    for number in range(1, 400):  # everybody asks for one version
        _choice(_order(places, ask_of("popular")), 0.0).in_flight += 1
        bound = math.ceil(OVERLOAD * number / len(places))
        assert max(one.in_flight for one in places) <= bound
