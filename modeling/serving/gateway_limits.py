"""Rate and plan limits in one step inside Valkey, by its own clock; counters are rebuilt from the usage rows."""

from __future__ import annotations

import logging
import time
from typing import Any

from django.utils import timezone
from redis.exceptions import RedisError

from billing import limits, queries
from billing.limits import LimitReached
from billing.plans import Plan
from billing.rates import KEPT_MILLISECONDS, LEVELS, Bucket, Rate
from modeling.serving.gateway_auth import Admission, in_database
from modeling.serving.gateway_valkey import Script, ValkeyPipe
from tenants.models import Tenant
from tenants.scope import scope

log = logging.getLogger("cloister.gateway")

COUNTER_SECONDS = 600  # then rebuilt from the rows
KINDS = ("predictions", "tokens")

# KEYS: bucket, one counter per kind. ARGV: requests a minute, tokens a minute, tokens that flow, then per kind: amount
# to add, ceiling (-1: none). A request of more tokens than the bucket holds passes when it is full.
# Returns {verdict, requests left, ms until full, tokens left, ms until full, ms until the next one fits}.
_ADMIT = Script.of(f"""{LEVELS}
for i = 2, 3 do
  if tonumber(ARGV[2*i + 1]) >= 0 and redis.call('EXISTS', KEYS[i]) == 0 then return {{'rebuild', 0, 0, 0, 0, 0}} end
end
local most, flow = tonumber(ARGV[1]), tonumber(ARGV[2])
local need = math.min(tonumber(ARGV[3]), flow)
local time = now()
local held = redis.call('HMGET', KEYS[1], 'requests', 'tokens', 'at')
local left, tokens = level(held[1], held[3], most, time), level(held[2], held[3], flow, time)
local function say(verdict, fits)
  local floor = math.max(0, math.floor(tokens))
  return {{verdict, math.floor(left), wait(most - left, most), floor, wait(flow - tokens, flow), fits}}
end
if left < 1 then return say('many requests', wait(1 - left, most)) end
if tokens < need then return say('many tokens', wait(need - tokens, flow)) end
for i = 2, 3 do
  local ceiling = tonumber(ARGV[2*i + 1])
  local amount = tonumber(ARGV[2*i])
  if ceiling >= 0 and amount > 0 and tonumber(redis.call('GET', KEYS[i])) + amount > ceiling then
    return say(i == 2 and 'predictions' or 'tokens', 0)
  end
end
left, tokens = left - 1, tokens - need
redis.call('HSET', KEYS[1], 'requests', left, 'tokens', tokens, 'at', time)
redis.call('PEXPIRE', KEYS[1], {KEPT_MILLISECONDS})
for i = 2, 3 do
  if tonumber(ARGV[2*i + 1]) >= 0 then redis.call('INCRBY', KEYS[i], ARGV[2*i]) end
end
return say('ok', 0)
""")

# KEYS: bucket, counter. ARGV: tokens that did not flow after all (negative: more did), amount to add to the counter.
_CORRECT = Script.of("""
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HINCRBYFLOAT', KEYS[1], 'tokens', ARGV[1]) end
if redis.call('EXISTS', KEYS[2]) == 1 then redis.call('INCRBY', KEYS[2], ARGV[2]) end
return 0
""")


class Limiter:
    """Asks and counts; without Valkey the plan's limits are read from the rows and there is no rate limit."""

    def __init__(self, url: str) -> None:
        self.valkey = ValkeyPipe(url)
        self._missed = float("-inf")

    async def close(self) -> None:
        """Close the connection once the last corrections are made."""
        await self.valkey.close()

    def _miss(self, error: RedisError) -> None:
        """Say once a second that nothing is limited, and that counters are rebuilt later."""
        if time.monotonic() - self._missed >= 1:
            self._missed = time.monotonic()
            log.warning("no rate limits without Valkey (%s)", type(error).__name__)

    async def take(
        self, admission: Admission, *, predictions: int = 0, tokens: int = 0, flow: int = 0
    ) -> Rate | None:
        """Count one request, what it will use and about how many tokens `flow` through the model for it.

        Raises Refusal 429 and LimitReached 402. None: no rate limit now.
        """
        tenant, plan = admission.caller.tenant, admission.plan
        ceilings = [_ceiling(plan, kind) for kind in KINDS]
        most = (plan.requests_per_minute, plan.tokens_per_minute)
        arguments = (*most, flow, predictions, ceilings[0], tokens, ceilings[1])
        month = f"{timezone.now():%Y%m}"
        keys = [_bucket(tenant), *(_counter(tenant, kind, month) for kind in KINDS)]
        try:
            found = await self.valkey.run(_ADMIT, keys, *arguments)
            if found[0] == b"rebuild":
                await self._rebuild(tenant)
                found = await self.valkey.run(_ADMIT, keys, *arguments)
        except RedisError as error:
            self._miss(error)
            await in_database(_require, tenant, predictions, tokens)
            return None
        return _allowed(plan, found)

    async def _rebuild(self, tenant: Tenant) -> None:
        used = await in_database(_used, tenant)
        for kind in KINDS:
            await self.valkey.call("SET", _counter(tenant, kind), used[kind], "EX", COUNTER_SECONDS, "NX")

    async def adjust(self, admission: Admission, kind: str, amount: int, *, flow: int = 0) -> None:
        """Correct the counts after the fact: what was used beyond what was taken, negative for less.

        Nobody waits for it. Without Valkey the counter stays wrong until it is rebuilt from the rows.
        """
        if _ceiling(admission.plan, kind) < 0:
            amount = 0
        if not amount and not flow:
            return
        tenant = admission.caller.tenant
        try:
            await self.valkey.tell(_CORRECT, [_bucket(tenant), _counter(tenant, kind)], -flow, amount)
        except RedisError as error:
            self._miss(error)


def _allowed(plan: Plan, found: list[Any]) -> Rate:
    """What the script said; raises its refusal."""
    verdict = found[0].decode()
    left, full, tokens_left, tokens_full, fits = (int(number) for number in found[1:])
    rate = Rate(
        Bucket(plan.requests_per_minute, left, full / 1000),
        Bucket(plan.tokens_per_minute, tokens_left, tokens_full / 1000),
    )
    kind = verdict.removeprefix("many ")
    if kind != verdict:
        raise rate.refusal(kind, fits / 1000)
    if verdict != "ok":
        raise _used_up(plan, verdict)
    return rate


def _bucket(tenant: Tenant) -> str:
    return f"t:{tenant.pk}:bucket"


def _counter(tenant: Tenant, kind: str, month: str = "") -> str:
    return f"t:{tenant.pk}:used:{kind}:{month or timezone.now().strftime('%Y%m')}"


def _ceiling(plan: Plan, kind: str) -> int:
    """The plan's number for the month; -1 where it sells more beyond."""
    return -1 if plan.price_of(kind) > 0 else int(getattr(plan, kind))


def _used(tenant: Tenant) -> dict[str, int]:
    with scope(tenant):
        return {kind: int(quantity) for kind, quantity in queries.usage_this_month(tenant).items()}


def _require(tenant: Tenant, predictions: int, tokens: int) -> None:
    with scope(tenant):
        for kind, amount in zip(KINDS, (predictions, tokens), strict=True):
            if amount:
                limits.require(tenant, kind, amount)


def _used_up(plan: Plan, kind: str) -> LimitReached:
    top = int(getattr(plan, kind))
    return LimitReached(f"Your plan ({plan.name}) includes {top:,} {kind} a month, and they are used up.")
