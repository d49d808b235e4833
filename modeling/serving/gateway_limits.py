"""Rate and plan limits in one step inside Valkey, by its own clock; counters are rebuilt from the usage rows."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import redis.asyncio
from django.utils import timezone
from redis.exceptions import RedisError

from billing import limits, queries
from billing.limits import LimitReached
from billing.plans import Plan
from modeling.serving.gateway_auth import Admission, in_database
from saas.lib.errors import Refusal
from tenants.models import Tenant
from tenants.scope import scope

log = logging.getLogger("cloister.gateway")

COUNTER_SECONDS = 600  # then rebuilt from the rows
KINDS = ("predictions", "tokens")

# KEYS: bucket, one counter per kind. ARGV: capacity, then per kind: amount to add, ceiling (-1: none).
# Returns {verdict, requests left, milliseconds until full, milliseconds until the next one fits}.
_ADMIT = """
for i = 2, 3 do
  if tonumber(ARGV[2*i - 1]) >= 0 and redis.call('EXISTS', KEYS[i]) == 0 then return {'rebuild', 0, 0, 0} end
end
local capacity = tonumber(ARGV[1])
local rate = capacity / 60000
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local bucket = redis.call('HMGET', KEYS[1], 'left', 'at')
local left = math.min(capacity, (tonumber(bucket[1]) or capacity) + (now - (tonumber(bucket[2]) or now)) * rate)
if left < 1 then return {'rate', 0, math.ceil((capacity - left) / rate), math.ceil((1 - left) / rate)} end
for i = 2, 3 do
  local ceiling = tonumber(ARGV[2*i - 1])
  local amount = tonumber(ARGV[2*i - 2])
  if ceiling >= 0 and amount > 0 and tonumber(redis.call('GET', KEYS[i])) + amount > ceiling then
    return {i == 2 and 'predictions' or 'tokens', math.floor(left), math.ceil((capacity - left) / rate), 0}
  end
end
left = left - 1
redis.call('HSET', KEYS[1], 'left', left, 'at', now)
redis.call('PEXPIRE', KEYS[1], 120000)
for i = 2, 3 do
  if tonumber(ARGV[2*i - 1]) >= 0 then redis.call('INCRBY', KEYS[i], ARGV[2*i - 2]) end
end
return {'ok', math.floor(left), math.ceil((capacity - left) / rate), 0}
"""
_ADD = "if redis.call('EXISTS', KEYS[1]) == 1 then return redis.call('INCRBY', KEYS[1], ARGV[1]) end return 0"


@dataclass(frozen=True, slots=True)
class Rate:
    """Where the caller stands in the token bucket."""

    limit: int
    left: int
    full_in_seconds: float

    def headers(self) -> dict[str, str]:
        """OpenAI's x-ratelimit headers."""
        return {
            "x-ratelimit-limit-requests": str(self.limit),
            "x-ratelimit-remaining-requests": str(self.left),
            "x-ratelimit-reset-requests": f"{self.full_in_seconds:.3f}s",
        }


class Limiter:
    """Asks and counts; without Valkey the plan's limits are read from the rows and there is no rate limit."""

    def __init__(self, url: str) -> None:
        self._client = redis.asyncio.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2)
        self._admit = self._client.register_script(_ADMIT)
        self._add = self._client.register_script(_ADD)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def take(self, admission: Admission, *, predictions: int = 0, tokens: int = 0) -> Rate | None:
        """Count one request and what it will use; raises Refusal 429 and LimitReached 402. None: no rate limit now."""
        tenant, plan = admission.caller.tenant, admission.plan
        ceilings = [_ceiling(plan, kind) for kind in KINDS]
        arguments = [plan.requests_per_minute, predictions, ceilings[0], tokens, ceilings[1]]
        keys = [f"t:{tenant.pk}:bucket", *(_counter(tenant, kind) for kind in KINDS)]
        try:
            verdict, left, full, fits = await self._admit(keys=keys, args=arguments)
            if verdict == b"rebuild":
                await self._rebuild(tenant)
                verdict, left, full, fits = await self._admit(keys=keys, args=arguments)
        except RedisError as error:
            log.warning("no rate limits without Valkey (%s)", type(error).__name__)
            await in_database(_require, tenant, predictions, tokens)
            return None
        rate = Rate(plan.requests_per_minute, int(left), full / 1000)
        if verdict == b"rate":
            raise _too_many(rate, fits / 1000)
        if verdict != b"ok":
            raise _used_up(plan, verdict.decode())
        return rate

    async def _rebuild(self, tenant: Tenant) -> None:
        used = await in_database(_used, tenant)
        for kind in KINDS:
            await self._client.set(_counter(tenant, kind), used[kind], ex=COUNTER_SECONDS, nx=True)

    async def adjust(self, admission: Admission, kind: str, amount: int) -> None:
        """Correct a counter after the fact: tokens that a chat used, predictions that failed (negative)."""
        if not amount or _ceiling(admission.plan, kind) < 0:
            return
        try:
            await self._add(keys=[_counter(admission.caller.tenant, kind)], args=[amount])
        except RedisError as error:
            log.warning("a counter was not corrected (%s): it is rebuilt later", type(error).__name__)


def _counter(tenant: Tenant, kind: str) -> str:
    return f"t:{tenant.pk}:used:{kind}:{timezone.now():%Y%m}"


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


def _too_many(rate: Rate, seconds: float) -> Refusal:
    headers = rate.headers() | {"retry-after": str(max(1, round(seconds + 0.5)))}
    return Refusal(
        f"Rate limit reached: {rate.limit} requests a minute. Wait a moment and try again.",
        status=429,
        code="rate_limit_exceeded",
        kind="requests",
        headers=headers,
    )


def _used_up(plan: Plan, kind: str) -> LimitReached:
    top = int(getattr(plan, kind))
    return LimitReached(f"Your plan ({plan.name}) includes {top:,} {kind} a month, and they are used up.")
