"""Requests a minute of a tenant to /v1 outside the gateway: one call to Valkey, and no limit while it is away."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, Final
from uuid import UUID

from redis.exceptions import RedisError
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from billing import queries
from billing.plans import Plan
from billing.rates import KEPT_MILLISECONDS, LEVELS, Bucket, Rate
from saas.lib import valkey
from tenants.access import Caller
from tenants.models import Tenant
from tenants.scope import scope

log = logging.getLogger(__name__)
PLAN_SECONDS: Final = 5.0
MOST_PLANS: Final = 10_000

# KEYS: bucket. ARGV: requests a minute. Returns {1 or 0, requests left, ms until full, ms until the next one fits}.
_TAKE: Final = f"""{LEVELS}
local capacity = tonumber(ARGV[1])
local time = now()
local held = redis.call('HMGET', KEYS[1], 'requests', 'at')
local left = level(held[1], held[2], capacity, time)
if left < 1 then return {{0, 0, wait(capacity - left, capacity), wait(1 - left, capacity)}} end
left = left - 1
redis.call('HSET', KEYS[1], 'requests', left, 'at', time)
redis.call('PEXPIRE', KEYS[1], {KEPT_MILLISECONDS})
return {{1, math.floor(left), wait(capacity - left, capacity), 0}}
"""


class _Plans:
    """Plans by tenant for PLAN_SECONDS: the limit need not cost a query."""

    def __init__(self) -> None:
        self._kept: dict[UUID, tuple[float, Plan]] = {}
        self._lock = threading.Lock()

    def of(self, tenant: Tenant) -> Plan:
        """The tenant's plan, at most so many seconds old."""
        now = time.monotonic()
        kept = self._kept.get(tenant.pk)
        if kept is not None and now - kept[0] < PLAN_SECONDS:
            return kept[1]
        with scope(tenant):
            plan = queries.plan_of(tenant)
        with self._lock:
            if len(self._kept) >= MOST_PLANS:
                self._kept.clear()
            self._kept[tenant.pk] = (now, plan)
        return plan


_plans = _Plans()


class PlanThrottle(BaseThrottle):
    """DRF: as many requests a minute as the plan says; raises Refusal 429, and puts the headers on every answer."""

    def allow_request(self, request: Request, view: APIView) -> bool:
        """True, or Refusal 429."""
        caller: Any = request.auth
        if not isinstance(caller, Caller):
            return True
        limit = _plans.of(caller.tenant).management_requests_per_minute
        try:
            verdict, left, full, fits = valkey.client().eval(_TAKE, 1, f"t:{caller.tenant.pk}:v1", limit)
        except RedisError as error:
            log.warning("no rate limits without Valkey (%s)", type(error).__name__)
            return True
        rate = Rate(Bucket(limit, int(left), full / 1000))
        view.headers.update(rate.headers())
        if not verdict:
            raise rate.refusal("requests", fits / 1000)
        return True
