"""Lines of a batch through the same calls as live requests: without rate limits, counted apart, after live traffic."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings

from billing.limits import LimitReached
from billing.plans import BATCH_SHARE
from billing.rates import Rate
from modeling.batch_lines import Line, answer_line, body_fields
from modeling.serving.engines import Engines
from modeling.serving.gateway_auth import Admission, Doorkeeper, Revocation
from modeling.serving.gateway_call import Call
from modeling.serving.gateway_calls import CALLS
from modeling.serving.gateway_http import Exchange
from modeling.serving.gateway_limits import Limiter
from modeling.serving.gateway_metrics import Seen
from modeling.serving.gateway_usage import UsageBatches
from saas.lib.errors import Refusal
from tenants.models import Tenant

log = logging.getLogger("cloister.batches")

AT_ONCE = 16
BYTES_MOST = 16 << 20  # of answers held in memory at a time
LARGE_LINE_BYTES = (
    256 << 10
)  # larger ones are asked one after another: read, they take many times their bytes
PAUSE_SECONDS = 0.5
# No line's fault: it is asked again.
WAITED_FOR = frozenset(
    {"engine_busy", "engine_unavailable", "key_refused", "keys_unreachable", "own_key_refused"}
)
TRIED_AGAIN = frozenset({"timeout"})  # once, since a line may be too large for its deadline


@dataclass(frozen=True, slots=True)
class Answered:
    """A line with its answer as a line of the output file, or of the error file when it failed."""

    line: Line
    is_good: bool
    content: bytes
    used: dict[str, float]  # whole units, by kind
    seen: Seen | None = None  # what is counted for the page of its model; None where it was never tried


class SliceLimits(Limiter):
    """The plan's monthly limits alone: what is left of them at the start of a slice, taken from line by line."""

    def __init__(self, left: dict[str, float]) -> None:
        self._left = left

    async def take(
        self, admission: Admission, *, predictions: int = 0, tokens: int = 0, flow: int = 0
    ) -> Rate | None:
        """Count what a line will use; raises LimitReached."""
        for kind, amount in (("predictions", predictions), ("tokens", tokens)):
            if amount and amount * BATCH_SHARE > self._left[kind]:
                raise LimitReached(
                    f"Your plan ({admission.plan.name}) includes {int(getattr(admission.plan, kind)):,} {kind} a "
                    "month, and they are used up."
                )
            self._left[kind] -= amount * BATCH_SHARE
        return None

    async def adjust(self, admission: Admission, kind: str, amount: int, *, flow: int = 0) -> None:
        """Correct the count after the fact."""
        self._left[kind] -= amount * BATCH_SHARE

    async def close(self) -> None:
        """Nothing is open."""


class LineUsage(UsageBatches):
    """What one line used; written with the slice's answers, not once a second."""

    def __init__(self) -> None:
        self.used: dict[str, float] = {}
        self.seen: Seen | None = None

    def add(self, tenant: Tenant, kind: str, quantity: float, request_id: str) -> None:
        """Count whole units; the share of them that is billed is the batch's matter."""
        self.used[kind] = self.used.get(kind, 0.0) + quantity


@dataclass(slots=True)
class _Sent:
    """What a call answered."""

    status: int = 0
    body: bytearray = field(default_factory=bytearray)

    async def send(self, message: dict[str, Any]) -> None:
        self.status = message.get("status", self.status)
        self.body += message.get("body", b"")


async def _nothing_more() -> dict[str, Any]:
    """A client that sent everything and stays."""
    await asyncio.Event().wait()
    raise AssertionError("never reached")


@dataclass(frozen=True)
class Slice:
    """Who asks, where, and when to stop taking lines."""

    admission: Admission
    endpoint: str
    left: dict[str, float]
    name: Callable[[Line], str]  # the request id of a line: the same whenever it is run
    seconds: float
    lines_most: int
    is_stopping: Callable[[], bool]

    async def run(self, lines: Iterator[Line]) -> tuple[list[Answered], bool]:
        """Answers of the first lines, without a gap, and whether these were all; the rest is for another slice."""
        void = Void(str(self.admission.caller.tenant.pk))
        async with _gateway(void) as (engines, doors):
            return await _Run(self, engines, doors, iter(lines), void).go()


@dataclass(slots=True)
class Void:
    """Whether the tenant was suspended, or erased, since the slice began: then it ends, and no line fails for it."""

    tenant: str
    is_told: bool = False

    def hear(self, message: Revocation) -> None:
        """Take a revocation."""
        self.is_told |= (message.kind, message.tenant) == ("tenant", self.tenant)


class _Run:
    """One slice under way: so many lines at once, their answers kept in the file's order."""

    def __init__(
        self, plan: Slice, engines: Engines, doors: Doorkeeper, lines: Iterator[Line], void: Void
    ) -> None:
        self.plan, self.engines, self.doors, self.lines, self.void = plan, engines, doors, lines, void
        self.limiter = SliceLimits(plan.left)
        self.until = asyncio.get_running_loop().time() + plan.seconds
        self.answers: list[Answered | None] = []
        self.held = 0
        self.large = asyncio.Lock()
        self.is_read_out = False

    async def go(self) -> tuple[list[Answered], bool]:
        async with asyncio.TaskGroup() as group:
            for _number in range(AT_ONCE):
                group.create_task(self._take_lines())
        whole: list[Answered] = []
        for one in self.answers:
            if one is None:
                return whole, False
            whole.append(one)
        return whole, self.is_read_out

    def _is_over(self) -> bool:
        is_late = asyncio.get_running_loop().time() >= self.until
        is_full = self.held >= BYTES_MOST or len(self.answers) >= self.plan.lines_most
        return is_late or is_full or self.is_read_out or self.void.is_told or self.plan.is_stopping()

    async def _take_lines(self) -> None:
        while not self._is_over():
            line = next(self.lines, None)
            if line is None:
                self.is_read_out = True
                return
            place = len(self.answers)
            self.answers.append(None)
            async with self.large if len(line.raw) > LARGE_LINE_BYTES else contextlib.nullcontext():
                answered = await self._answer(line)
            if answered is None:
                return
            self.answers[place] = answered
            self.held += len(answered.content)

    async def _answer(self, line: Line) -> Answered | None:
        """The line's answer; None when the engine could not take it until the slice's end."""
        custom_id, body = line.request()
        request_id = self.plan.name(line)
        tries = 0
        while True:
            sent, usage = _Sent(), LineUsage()
            refusal = await self._refusal(self._call(body, request_id, sent, usage), request_id)
            if refusal is None:
                content = answer_line(request_id, custom_id, sent.status, bytes(sent.body))
                return Answered(line, sent.status < 400, content, usage.used, usage.seen)
            if self.void.is_told:
                return None
            tries += 1
            if refusal.code in WAITED_FOR or (refusal.code in TRIED_AGAIN and tries < 2):
                if asyncio.get_running_loop().time() >= self.until or self.plan.is_stopping():
                    return None
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            said = json.dumps(refusal.body(), ensure_ascii=False, separators=(",", ":")).encode()
            content = answer_line(request_id, custom_id, refusal.status, said)
            if usage.seen is not None:
                usage.seen.status = refusal.status
            return Answered(line, False, content, usage.used, usage.seen)

    async def _refusal(self, answering: Coroutine[Any, Any, None], request_id: str) -> Refusal | None:
        """Why a call was refused; a bug is logged and fails its line alone."""
        work = asyncio.ensure_future(answering)
        try:
            await asyncio.wait({work})
        finally:
            work.cancel()
        error = work.exception()
        if error is None or isinstance(error, Refusal):
            return error
        log.error("line %s failed: a bug", request_id, exc_info=error)
        return Refusal("The server failed to answer.", status=500, code="internal_error", kind="server_error")

    async def _call(self, body: dict[str, Any], request_id: str, sent: _Sent, usage: LineUsage) -> None:
        headers = [(b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": self.plan.endpoint, "headers": headers}
        exchange = Exchange(scope, _nothing_more, sent.send)
        exchange.request_id = request_id
        usage.seen = exchange.seen
        call = Call(exchange, self.plan.admission, self.engines, self.doors, self.limiter, usage)
        await CALLS[self.plan.endpoint](call, body_fields(body))


@asynccontextmanager
async def _gateway(void: Void) -> AsyncIterator[tuple[Engines, Doorkeeper]]:
    """Engines and model names for the length of a slice; a revocation reaches it as it reaches the gateway."""
    engines = Engines.from_settings()
    doors = Doorkeeper(settings.REDIS_URL, on_void=void.hear)
    link = asyncio.create_task(doors.link.run())
    try:
        yield engines, doors
    finally:
        doors.link.close()
        link.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await link
        await engines.close()
