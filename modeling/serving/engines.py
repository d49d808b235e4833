"""All engines as one: a request goes to where its base lives, and waits out an engine's restart."""

from __future__ import annotations

import asyncio
import hashlib
import math
import ssl
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Protocol

from django.conf import settings

from modeling.serving.addresses import (
    ALL,
    Address,
    OpenAIAddress,
    Places,
    TlsAddress,
    settings_places,
)
from modeling.serving.client import Broken, EngineClient, gone
from modeling.serving.tls import client_credentials
from modeling.serving.wire import EngineRefusal, Kind

OVERLOAD = 1.25  # a replica takes at most this much more than the mean
GREET_SECONDS = 3.0
PURGE_SECONDS = 5.0
MOST_BREAKS = (
    2  # a request under which so many engines died and one more is not sent again: it may be the cause
)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.03, 0.25  # seconds between attempts to connect

Frames = AsyncGenerator[tuple[Kind, dict[str, Any]], None]


class Backend(Protocol):
    """What answers requests: an engine of ours, or another program behind the same calls."""

    def stream(self, op: str, *, tenant: str, seconds: float, **body: Any) -> Frames: ...
    async def greet(self, seconds: float) -> bool: ...
    async def close(self) -> None: ...


@dataclass(slots=True, eq=False)
class _Replica:
    address: Address
    backend: Backend
    in_flight: int = 0
    failures: int = 0
    rests_until: float = field(default=0.0)
    owed: set[tuple[str, str | None]] = field(
        default_factory=set
    )  # purges that did not reach it: tenant, version

    def failed(self, now: float) -> None:
        """Rest: twice as long after each failure in a row; those that fail together count as one."""
        if now < self.rests_until:
            return
        self.rests_until = now + min(_FIRST_PAUSE * 2 ** min(self.failures, 10), _LONGEST_PAUSE)
        self.failures += 1


class Engines:
    """Routes by `base` and artefact version. One per event loop; same calls as EngineClient."""

    def __init__(
        self,
        places: Places,
        *,
        credentials: ssl.SSLContext | None = None,
        patience: float,
    ) -> None:
        self._patience = patience
        self._replicas: dict[Address, _Replica] = {}
        self._places: dict[str, list[_Replica]] = {}
        for base, addresses in places.items():
            self._places[base] = [self._replica(address, credentials) for address in addresses]
        self._default = self._places.get(ALL) or next(iter(self._places.values()))

    @classmethod
    def from_settings(cls) -> Engines:
        """As ENGINES, ENGINE_SOCKET and the certificates say; raises BadAddress."""
        places = settings_places(settings.ENGINES, settings.ENGINE_SOCKET, settings.ENGINE_SPLIT)
        is_remote = any(isinstance(one, TlsAddress) for several in places.values() for one in several)
        credentials = (
            client_credentials(settings.ENGINE_TLS_CERT, settings.ENGINE_TLS_KEY, settings.ENGINE_TLS_CA)
            if is_remote
            else None
        )
        return cls(places, credentials=credentials, patience=settings.ENGINE_PATIENCE_SECONDS)

    def _replica(self, address: Address, credentials: ssl.SSLContext | None) -> _Replica:
        if address not in self._replicas:
            self._replicas[address] = _Replica(address, _backend(address, credentials))
        return self._replicas[address]

    async def ask(self, op: str, *, tenant: str, seconds: float, **body: Any) -> dict[str, Any]:
        """The answer's body; raises EngineRefusal. A purge goes to every engine and counts what all forgot."""
        if op == "purge":
            return await self._purge(tenant, seconds, body)
        async with aclosing(self.stream(op, tenant=tenant, seconds=seconds, **body)) as frames:
            async for kind, answer in frames:
                if kind is Kind.DONE:
                    return answer
        raise gone()

    async def stream(
        self, op: str, *, tenant: str, seconds: float, at_once: bool = False, **body: Any
    ) -> Frames:
        """Yields (PART, body)… then (DONE, body); raises EngineRefusal.

        `unavailable` before the first PART is tried again until the deadline (at most the patience): on another
        replica at once, on the same one after a pause. With `at_once` the parts come together with the end, so that
        an answer nobody has seen yet is begun anew too.
        """
        places = self._places.get(str(body.get("base", "")), self._default)
        async with aclosing(self._stream(places, op, tenant, seconds, body, at_once=at_once)) as frames:
            async for frame in frames:
                yield frame

    async def _stream(
        self,
        places: list[_Replica],
        op: str,
        tenant: str,
        seconds: float,
        body: Mapping[str, Any],
        *,
        at_once: bool = False,
    ) -> Frames:
        clock = asyncio.get_running_loop().time
        until = clock() + seconds
        give_up, breaks = min(until, clock() + self._patience), 0
        order = _order(places, body)
        while True:
            replica = await _awake(order, give_up)
            begun = False
            replica.in_flight += 1
            frames = replica.backend.stream(op, tenant=tenant, seconds=max(until - clock(), 0.0), **body)
            try:
                await _settle(replica)
                async with aclosing(_held(frames) if at_once else frames) as found:
                    async for frame in found:
                        begun, replica.failures = True, 0
                        yield frame
                return
            except EngineRefusal as refusal:
                if refusal.code == "elsewhere" and not begun:
                    order = self._own(refusal)
                    continue
                if refusal.code != "unavailable":
                    raise
                replica.failed(clock())
                if isinstance(refusal, Broken):
                    breaks, give_up = breaks + 1, min(until, clock() + self._patience)
                if begun or breaks > MOST_BREAKS or clock() >= give_up:
                    raise
            finally:
                replica.in_flight -= 1

    def _own(self, refusal: EngineRefusal) -> list[_Replica]:
        """Engines of ours, for a tuned version that the other program cannot take; raises EngineRefusal."""
        own = [one for one in self._default if not isinstance(one.address, OpenAIAddress)]
        if not own:
            raise EngineRefusal("no_base", refusal.message) from refusal
        return own

    async def _purge(self, tenant: str, seconds: float, body: Mapping[str, Any]) -> dict[str, Any]:
        """Every engine forgets. One that cannot be told now is told before it answers anything else."""
        found = await self.ask_all("purge", tenant=tenant, seconds=seconds, **body)
        for replica in self._replicas.values():
            if isinstance(found[str(replica.address)], EngineRefusal):
                replica.owed.add((tenant, body.get("version")))
        for one in found.values():
            if isinstance(one, EngineRefusal):
                raise one
        return {"purged": sum(int(one["purged"]) for one in found.values() if isinstance(one, dict))}

    async def ask_all(
        self, op: str, *, tenant: str = "", seconds: float, **body: Any
    ) -> dict[str, dict[str, Any] | EngineRefusal]:
        """Every engine's own answer or refusal, by its address."""

        async def ask(replica: _Replica) -> dict[str, Any] | EngineRefusal:
            try:
                async with aclosing(self._stream([replica], op, tenant, seconds, body)) as frames:
                    return (await anext(frames))[1]  # these have no parts
            except EngineRefusal as refusal:
                return refusal

        replicas = list(self._replicas.values())
        answers = await asyncio.gather(*map(ask, replicas))
        return {str(one.address): answer for one, answer in zip(replicas, answers, strict=True)}

    async def missing(self, seconds: float = GREET_SECONDS) -> list[str]:
        """Bases none of whose replicas greets now; ALL stands for those without a place of their own."""
        replicas = list(self._replicas.values())
        greeted = await asyncio.gather(*(replica.backend.greet(seconds) for replica in replicas))
        alive = {id(replica) for replica, is_well in zip(replicas, greeted, strict=True) if is_well}
        return sorted(
            base for base, places in self._places.items() if not any(id(one) in alive for one in places)
        )

    async def snapshots(self, seconds: float) -> dict[str, dict[str, Any] | None]:
        """What each engine counts, by the end of its address: {} from one that does not, None from one that is down."""

        async def one(replica: _Replica) -> dict[str, Any] | None:
            frames = replica.backend.stream("stats", tenant="", seconds=seconds)
            try:
                async with asyncio.timeout(seconds), aclosing(frames):
                    return [answer async for kind, answer in frames if kind is Kind.DONE][-1]
            except (EngineRefusal, TimeoutError, IndexError):
                return {} if await replica.backend.greet(seconds) else None

        replicas = list(self._replicas.values())
        found = await asyncio.gather(*map(one, replicas))
        names = [str(replica.address).rsplit("/", 1)[-1] for replica in replicas]
        return dict(zip(names, found, strict=True))

    async def close(self) -> None:
        """Close all connections; asks under way fail as `unavailable`."""
        await asyncio.gather(*(replica.backend.close() for replica in self._replicas.values()))


async def ask_engines(op: str, *, tenant: str, seconds: float, **body: Any) -> dict[str, Any]:
    """One request on connections of its own, for callers without a lasting loop; raises EngineRefusal."""
    engines = Engines.from_settings()
    try:
        return await engines.ask(op, tenant=tenant, seconds=seconds, **body)
    finally:
        await engines.close()


def _backend(address: Address, credentials: ssl.SSLContext | None) -> Backend:
    if isinstance(address, OpenAIAddress):
        # only where it is used: an HTTP client costs the gateway memory
        from modeling.serving.openai_backend import OpenAIBackend

        return OpenAIBackend(address)
    return EngineClient(address, credentials=credentials)


def _order(places: list[_Replica], body: Mapping[str, Any]) -> list[_Replica]:
    """Rendezvous: each (base, version) has its own order of replicas, so that one more moves few of them."""
    if len(places) == 1:
        return places
    artifact = body.get("artifact")
    version = artifact.get("version", "") if isinstance(artifact, Mapping) else ""
    name = f"{body.get('base', '')}\n{version}\n"
    return sorted(
        places, key=lambda one: hashlib.blake2b(f"{name}{one.address}".encode()).digest(), reverse=True
    )


async def _held(frames: Frames) -> Frames:
    """All frames once the last has come."""
    async with aclosing(frames):
        found = [frame async for frame in frames]
    for frame in found:
        yield frame


async def _settle(replica: _Replica) -> None:
    """Tell an engine that was away what it is to forget; raises EngineRefusal while it cannot be told."""
    for tenant, version in list(replica.owed):
        told = replica.backend.stream("purge", tenant=tenant, seconds=PURGE_SECONDS, version=version)
        async with aclosing(told) as frames:
            async for _ in frames:
                replica.owed.discard((tenant, version))


async def _awake(order: list[_Replica], give_up: float) -> _Replica:
    """The replica to ask now, after its rest if all rest; raises EngineRefusal when none is up in time."""
    clock = asyncio.get_running_loop().time
    while (replica := _choice(order, clock())).rests_until > clock():
        if replica.rests_until >= give_up:
            raise gone()
        await asyncio.sleep(replica.rests_until - clock())
    return replica


def _choice(order: list[_Replica], now: float) -> _Replica:
    """The first that neither rests nor has more than its share; if all rest, the one that is up soonest."""
    awake = [one for one in order if one.rests_until <= now]
    if not awake:
        return min(order, key=lambda one: one.rests_until)
    bound = math.ceil(OVERLOAD * (sum(one.in_flight for one in awake) + 1) / len(awake))
    return next((one for one in awake if one.in_flight < bound), awake[0])
