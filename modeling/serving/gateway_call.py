"""One admitted request on its way: the model it means, the engine's answer, what is counted and what comes after."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from modeling.serving.engines import Engines
from modeling.serving.gateway_after import Afterwards
from modeling.serving.gateway_auth import Admission, Doorkeeper
from modeling.serving.gateway_http import Exchange
from modeling.serving.gateway_limits import Limiter
from modeling.serving.gateway_usage import UsageBatches
from modeling.serving.targets import Route, Target, require_task
from modeling.serving.wire import EngineRefusal
from saas.lib.errors import Refusal

SECONDS = 30.0
BYTES_A_TOKEN = 4  # of a body, about
_STATUS = {
    "busy": (429, "engine_busy", "requests"),
    "deadline": (504, "timeout", "server_error"),
    "unavailable": (503, "engine_unavailable", "server_error"),
    "no_base": (503, "model_unavailable", "server_error"),
    "bad_artifact": (503, "model_unavailable", "server_error"),
    "revoked": (404, "model_not_found", "invalid_request_error"),
    "wrong_task": (400, "wrong_task", "invalid_request_error"),
    "bad_cell": (400, "invalid_value", "invalid_request_error"),
    "unsupported": (400, "unsupported", "invalid_request_error"),
    "context_length": (400, "context_length_exceeded", "invalid_request_error"),
    "bad_schema": (400, "invalid_json_schema", "invalid_request_error"),
    "bad_bias": (400, "invalid_value", "invalid_request_error"),
    "unknown_item": (400, "unknown_item", "invalid_request_error"),
    "unknown_column": (400, "unknown_column", "invalid_request_error"),
    "bad_filter": (400, "invalid_value", "invalid_request_error"),
}
_PARAMS = {
    "revoked": "model",
    "wrong_task": "model",
    "bad_cell": "inputs",
    "context_length": "messages",
    "bad_schema": "response_format",
    "bad_bias": "logit_bias",
    "unknown_item": "similar_to",
    "unknown_column": "filter",
    "bad_filter": "filter",
}


@dataclass(frozen=True, slots=True)
class Serving:
    """Who answers this request, out of those that its model's name may mean."""

    route: Route
    target: Target


@dataclass(frozen=True)
class Call:
    """One admitted request and what it needs."""

    exchange: Exchange
    admission: Admission
    engine: Engines
    doors: Doorkeeper
    limiter: Limiter
    usage: UsageBatches
    afterwards: Afterwards | None = None

    async def serving(self, model: str, task: str) -> Serving:
        """What answers to `model`, if it is this tenant's and does this task; raises Refusal."""
        route = await self.doors.route(self.admission.caller.tenant.pk, model)
        serving = Serving(route, require_task(route.pick(), task))
        self.exchange.seen.meets(self.admission.caller.tenant, serving.target)
        self.exchange.version, self.exchange.may_keep = serving.target.version, route.rules.log_days > 0
        if route.endpoint:
            self.exchange.extra["x-cloister-endpoint"] = model
        if self.afterwards is not None:
            self.afterwards.begun(self.exchange.seen, self.admission.caller.tenant.pk, serving)
        return serving

    async def ask(self, op: str, target: Target, **body: Any) -> dict[str, Any]:
        """The engine's answer; raises Refusal."""
        tenant = str(self.admission.caller.tenant.pk)
        try:
            return await self.engine.ask(
                op, tenant=tenant, seconds=self.exchange.seconds(SECONDS), **target.body(), **body
            )
        except EngineRefusal as refusal:
            raise refused(refusal) from refusal

    @asynccontextmanager
    async def counted(self, kind: str, amount: int) -> AsyncIterator[Tally]:
        """Reserve `amount` against the limits; at the end bill what the tally says was delivered.

        The tokens that flow are guessed from the body's size and corrected by what the model read and wrote.
        """
        flow = self.exchange.body_bytes // BYTES_A_TOKEN + 1
        rate = await self.limiter.take(self.admission, **{kind: amount}, flow=flow)
        self.exchange.extra.update(rate.headers() if rate is not None else {})
        tally = Tally()
        try:
            yield tally
        finally:
            self.exchange.seen.bill(kind, tally.delivered, tally.read)
            billed_id = self.exchange.billed_id or self.exchange.request_id
            self.usage.add(self.admission.caller.tenant, kind, tally.delivered, billed_id)
            flowed = tally.delivered if kind == "tokens" else tally.read
            more = flowed - min(flow, self.admission.plan.tokens_per_minute)
            await self.limiter.adjust(self.admission, kind, tally.delivered - amount, flow=more)


@dataclass(slots=True)
class Tally:
    """What has reached the client so far, in the billed unit."""

    delivered: int = 0
    read: int = 0  # tokens that came from the client, billed or not


def refused(refusal: EngineRefusal) -> Refusal:
    """The HTTP form of what the engine said."""
    status, code, kind = _STATUS.get(refusal.code, (500, "internal_error", "server_error"))
    message = refusal.message if refusal.code in _STATUS else "The server failed to answer. Try again."
    wait = refusal.retry_after_seconds
    headers = {"retry-after": str(max(1, round(wait)))} if wait else {}
    return Refusal(
        message, status=status, code=code, kind=kind, param=_PARAMS.get(refusal.code), headers=headers
    )
