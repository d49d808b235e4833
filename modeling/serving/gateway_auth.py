"""Who is calling and which model they mean, remembered for at most 5 s and only while revocations reach us."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import uuid
from collections.abc import Awaitable, Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import redis.asyncio
from django.db import InterfaceError, OperationalError, connection
from redis.exceptions import RedisError

from billing.plans import Plan
from billing.queries import Standing, account_of
from modeling.serving.targets import Route, serving_route
from saas.lib.errors import Forbidden, Refusal
from tenants import vault
from tenants.access import Caller, authenticate_key
from tenants.actions import REVOCATIONS
from tenants.scope import scope

log = logging.getLogger("cloister.gateway")

CACHE_SECONDS = 5.0
MAX_REMEMBERED = 20_000
_HEARTBEAT_SECONDS = 1.0
_SILENCE_SECONDS = 3.0
_THREADS = ThreadPoolExecutor(4, "gateway-db")

Value = TypeVar("Value")


async def in_database(work: Callable[..., Value], *arguments: Any) -> Value:
    """Run blocking database work in one of the gateway's own threads, once more when its connection had died."""
    return await asyncio.get_running_loop().run_in_executor(_THREADS, _with_connection, work, arguments)


def _with_connection(work: Callable[..., Value], arguments: tuple[Any, ...]) -> Value:
    try:
        return work(*arguments)
    except (OperationalError, InterfaceError):
        connection.close()
        return work(*arguments)


@dataclass(frozen=True, slots=True)
class Revocation:
    """A message: what somebody remembers of this key, tenant, version, endpoint or member is void."""

    kind: str
    tenant: str
    id: str


class RevocationLink:
    """The subscription to revocations. `up` is true only between a confirmed subscription and the first doubt."""

    def __init__(
        self, url: str, *, on_message: Callable[[Revocation], None], on_break: Callable[[], None]
    ) -> None:
        self._url = url
        self._on_message = on_message
        self._on_break = on_break
        self.up = False
        self._is_closed = False

    def close(self) -> None:
        """Let `run` end; cancel its task too. (redis-py may swallow a cancellation while it connects.)"""
        self._is_closed = True

    async def run(self) -> None:
        """Stay subscribed until closed."""
        while not self._is_closed:
            try:
                await self._listen()
            except (RedisError, OSError, TimeoutError) as error:
                log.warning(
                    "revocations do not reach the gateway (%s): nothing is cached", type(error).__name__
                )
            finally:
                self.up = False
                self._on_break()
            await asyncio.sleep(0.5)

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        client = redis.asyncio.Redis.from_url(self._url, socket_connect_timeout=2)
        async with client, client.pubsub() as link:
            await link.subscribe(REVOCATIONS)
            heard = loop.time()
            while not self._is_closed:
                message = await link.get_message(timeout=_HEARTBEAT_SECONDS)
                if message is not None:
                    heard = loop.time()
                    self._take(message)
                elif loop.time() - heard > _SILENCE_SECONDS:
                    raise TimeoutError
                else:
                    await link.ping()

    def _take(self, message: dict[str, Any]) -> None:
        if message["type"] == "subscribe":
            self.up = True
        elif message["type"] == "message":
            with contextlib.suppress(ValueError, KeyError, TypeError):
                body = json.loads(message["data"])
                self._on_message(Revocation(str(body["kind"]), str(body["tenant"]), str(body["id"])))


class Memory(Generic[Value]):
    """Results of loads for CACHE_SECONDS, one load at a time per key. Refusals are never remembered."""

    def __init__(self, is_trusted: Callable[[], bool]) -> None:
        self._is_trusted = is_trusted
        self._kept: dict[Hashable, tuple[float, Value]] = {}
        self._loading: dict[Hashable, asyncio.Task[Value]] = {}
        self._generation = 0

    async def get(self, key: Hashable, load: Callable[[], Awaitable[Value]]) -> Value:
        """The remembered value, or a fresh one."""
        if not self._is_trusted():
            return await load()
        now = asyncio.get_running_loop().time()
        kept = self._kept.get(key)
        if kept is not None and now - kept[0] < CACHE_SECONDS:
            return kept[1]
        loading = self._loading.get(key)
        if loading is None:
            loading = self._loading[key] = asyncio.create_task(self._load(key, load, now))
            loading.add_done_callback(lambda task: self._loaded(key, task))
        return await asyncio.shield(loading)

    async def _load(self, key: Hashable, load: Callable[[], Awaitable[Value]], now: float) -> Value:
        generation = self._generation
        value = await load()
        if generation == self._generation and self._is_trusted():
            if len(self._kept) >= MAX_REMEMBERED:
                self._kept.clear()
            self._kept[key] = (now, value)  # the age counts from before the rows were read
        return value

    def _loaded(self, key: Hashable, task: asyncio.Task[Value]) -> None:
        if self._loading.get(key) is task:
            del self._loading[key]
        if not task.cancelled():
            task.exception()

    def drop(self, is_void: Callable[[Value], bool]) -> None:
        """Forget what `is_void` says, and do not keep what is being loaded now."""
        self._generation += 1
        self._loading.clear()
        self._kept = {key: kept for key, kept in self._kept.items() if not is_void(kept[1])}


@dataclass(frozen=True, slots=True)
class Admission:
    """A caller with the plan that bounds them."""

    caller: Caller
    plan: Plan
    standing: Standing


@dataclass(frozen=True, slots=True)
class _Meaning:
    tenant: str
    route: Route


class Doorkeeper:
    """Keys and model names, answered from memory where that is safe."""

    def __init__(self, url: str, *, on_void: Callable[[Revocation], None]) -> None:
        self._on_void = on_void
        self.link = RevocationLink(url, on_message=self._revoke, on_break=self._forget)
        self._admissions: Memory[Admission] = Memory(lambda: self.link.up)
        self._meanings: Memory[_Meaning] = Memory(lambda: self.link.up)
        self._secrets: Memory[tuple[str, bytes]] = Memory(lambda: self.link.up)

    async def admit(self, key: str, scope_name: str) -> Admission:
        """The admission of an API key with that scope; raises Unauthenticated, Forbidden, Refusal 402."""
        digest = hashlib.sha256(key.encode()).digest()
        admission = await self._admissions.get(digest, lambda: in_database(_admit, key))
        if not admission.caller.may(scope_name):
            raise Forbidden(f"This API key lacks the scope `{scope_name}`.", code="missing_scope")
        if admission.standing is Standing.SUSPENDED:
            raise Refusal(
                "This account is suspended. Nothing was deleted; please contact us.",
                status=402,
                code="suspended",
                kind="billing_error",
            )
        return admission

    async def route(self, tenant_id: uuid.UUID, model: str) -> Route:
        """What a model name means for this tenant; raises NotFound."""
        meaning = await self._meanings.get(
            (tenant_id, model), lambda: in_database(_meaning, tenant_id, model)
        )
        return meaning.route

    async def secret(self, tenant_id: uuid.UUID) -> bytes:
        """32 bytes of this tenant's own, for what is remembered of its idempotency keys."""
        return (await self._secrets.get(tenant_id, lambda: in_database(_secret, tenant_id)))[1]

    def _revoke(self, message: Revocation) -> None:
        self._admissions.drop(lambda kept: str(kept.caller.tenant.pk) == message.tenant)
        self._meanings.drop(lambda kept: kept.tenant == message.tenant)
        self._secrets.drop(lambda kept: kept[0] == message.tenant)
        self._on_void(message)

    def _forget(self) -> None:
        self._admissions.drop(lambda kept: True)
        self._meanings.drop(lambda kept: True)
        self._secrets.drop(lambda kept: True)


def _admit(key: str) -> Admission:
    caller = authenticate_key(key)
    with scope(caller.tenant):
        return Admission(caller, *account_of(caller.tenant))


def _meaning(tenant_id: uuid.UUID, model: str) -> _Meaning:
    return _Meaning(str(tenant_id), serving_route(tenant_id, model))


def _secret(tenant_id: uuid.UUID) -> tuple[str, bytes]:
    return str(tenant_id), vault.derive(tenant_id, "idempotency")
