"""Requests under way: how many and how large they may be together, and what ends them before their answer."""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType
from typing import Final, Self

from django.db import Error as DatabaseFailure

from modeling.serving.gateway_auth import Admission, Doorkeeper, Revocation
from modeling.serving.gateway_http import ClientGone, Exchange
from saas.lib.errors import NotFound, Refusal

log = logging.getLogger("cloister.gateway")

MOST_REQUESTS: Final = 2_048
MOST_OF_TENANT: Final = 1_024
MOST_BODY_BYTES: Final = (
    64 << 20
)  # of bodies that are larger than SMALL; read and checked, they take several times that
MOST_BODY_BYTES_OF_TENANT: Final = 32 << 20
SMALL_BODY_BYTES: Final = 32 << 10  # bounded by the number of requests
LISTEN_AFTER_SECONDS: Final = (
    0.02  # most answers are there by then, and nobody need listen for a client that leaves
)
LOOK_SECONDS: Final = 2.0
LONG_SECONDS: Final = 5.0
EXPECTED: Final = (Refusal, ClientGone, DatabaseFailure)


class Underway:
    """One admitted request, as a context: entered when it may begin; it turns what ends it early into a Refusal."""

    def __init__(self, among: OpenRequests, exchange: Exchange, admission: Admission, key: str) -> None:
        self._among = among
        self.exchange = exchange
        self.key = key
        self.tenant = str(admission.caller.tenant.pk)
        self.bytes = 0
        self.since = 0.0
        self._reason: Refusal | ClientGone | None = None
        self._task: asyncio.Task[None] | None = None
        self._listening: asyncio.TimerHandle | None = None
        self._listener: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        self._among.enter(self)
        self._task = asyncio.current_task()
        return self

    def take(self, count: int) -> None:
        """So many more bytes of the body are held in memory; raises Refusal 429."""
        self._among.take(self, count)

    def listen(self) -> None:
        """From now on notice that the client leaves; call after the body was read."""
        loop = asyncio.get_running_loop()
        self._listening = loop.call_later(LISTEN_AFTER_SECONDS, self._listen)

    def _listen(self) -> None:
        self._listener = asyncio.create_task(self._wait())

    async def _wait(self) -> None:
        await self.exchange.gone()
        self.cut(ClientGone())

    def cut(self, reason: Refusal | ClientGone) -> None:
        """End it now: its work is cancelled, here and in the engine, and what was sent is billed."""
        if self._reason is None and self._task is not None:
            self._reason = reason
            self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        self._among.leave(self)
        if self._listening is not None:
            self._listening.cancel()
        if self._listener is not None:
            self._listener.cancel()
        if self._reason is not None and task is not None:
            task.uncancel()
            if isinstance(error, asyncio.CancelledError):
                raise self._reason from None
        is_bug = isinstance(error, Exception) and not isinstance(error, EXPECTED)
        if not is_bug:
            return
        log.error("request %s failed: a bug", self.exchange.request_id, exc_info=error)
        raise Refusal(
            "The server failed to answer.", status=500, code="internal_error", kind="server_error"
        ) from error


class OpenRequests:
    """All requests under way in one event loop."""

    def __init__(self, doors: Doorkeeper) -> None:
        self._doors = doors
        self._open: dict[Underway, None] = {}
        self._of_tenant: dict[str, int] = {}
        self._bytes: dict[str, int] = {}
        self._all_bytes = 0

    def enter(self, one: Underway) -> None:
        """Let a request in; raises Refusal 429 while there are too many."""
        count = self._of_tenant.get(one.tenant, 0)
        if count >= MOST_OF_TENANT or len(self._open) >= MOST_REQUESTS:
            raise _busy("requests under way")
        self._of_tenant[one.tenant] = count + 1
        self._open[one] = None
        one.since = asyncio.get_running_loop().time()

    def take(self, one: Underway, count: int) -> None:
        """Count bytes of a body; raises Refusal 429 while too many are held."""
        before, one.bytes = one.bytes, one.bytes + count
        if one.bytes <= SMALL_BODY_BYTES:
            return
        added = one.bytes if before <= SMALL_BODY_BYTES else count
        held = self._bytes.get(one.tenant, 0) + added
        if held > MOST_BODY_BYTES_OF_TENANT or self._all_bytes + added > MOST_BODY_BYTES:
            one.bytes = before
            raise _busy("large bodies under way")
        self._bytes[one.tenant] = held
        self._all_bytes += added

    def leave(self, one: Underway) -> None:
        """It has ended."""
        del self._open[one]
        _less(self._of_tenant, one.tenant, 1)
        if one.bytes > SMALL_BODY_BYTES:
            _less(self._bytes, one.tenant, one.bytes)
            self._all_bytes -= one.bytes

    async def void(self, message: Revocation) -> None:
        """Cut off those whose key or tenant is no longer let in, or whose version was withdrawn."""
        mine = [one for one in self._open if one.tenant == message.tenant]
        if message.kind == "version":
            gone = NotFound("The model was withdrawn.", code="model_not_found", param="model")
            for one in mine:
                if one.exchange.version == message.id:
                    one.cut(gone)
        elif message.kind in ("key", "tenant"):
            await self._ask_again(mine)

    async def watch(self) -> None:
        """Ask again for whoever has been under way for long: a message may be lost, or no link be up."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            begun = asyncio.get_running_loop().time() - LONG_SECONDS
            await self._ask_again([one for one in self._open if one.since < begun])

    async def _ask_again(self, some: list[Underway]) -> None:
        by_key: dict[str, list[Underway]] = {}
        for one in some:
            by_key.setdefault(one.key, []).append(one)
        refusals = await asyncio.gather(*map(self._refusal, by_key))
        for ones, refusal in zip(by_key.values(), refusals, strict=True):
            if refusal is not None:
                for one in ones:
                    one.cut(refusal)

    async def _refusal(self, key: str) -> Refusal | None:
        """Why a key is not let in now; not being able to know counts as no."""
        try:
            await self._doors.admit(key, "predict")
        except Refusal as refusal:
            return refusal
        except DatabaseFailure:
            return no_database()
        return None


def _less(counts: dict[str, int], name: str, amount: int) -> None:
    left = counts[name] - amount
    if left:
        counts[name] = left
    else:
        del counts[name]


def _busy(what: str) -> Refusal:
    return Refusal(
        f"There are too many {what}. Wait a moment and try again.",
        status=429,
        code="too_many_at_once",
        kind="requests",
        headers={"retry-after": "1"},
    )


def no_database() -> Refusal:
    """503: nothing can be looked up now."""
    return Refusal(
        "The service cannot look this up at the moment. Try again shortly.",
        status=503,
        code="database_unavailable",
        kind="server_error",
        headers={"retry-after": "1"},
    )
