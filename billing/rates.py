"""Token buckets inside Valkey, by its own clock: requests and tokens a minute, with the headers of OpenAI's API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from saas.lib.errors import Refusal

KEPT_MILLISECONDS: Final = 120_000  # a bucket is full again after one minute

# Lua: now(), and what a bucket holds that held `left` at `at` and fills up to `capacity` once a minute.
LEVELS: Final = """
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function level(left, at, capacity, time)
  return math.min(capacity, (tonumber(left) or capacity) + (time - (tonumber(at) or time)) * capacity / 60000)
end
local function wait(missing, capacity)
  return math.max(0, math.ceil(missing * 60000 / capacity))
end
"""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where a caller stands in one bucket."""

    limit: int
    left: int
    full_in_seconds: float

    def headers(self, kind: str) -> dict[str, str]:
        """The three x-ratelimit headers of requests or of tokens."""
        return {
            f"x-ratelimit-limit-{kind}": str(self.limit),
            f"x-ratelimit-remaining-{kind}": str(self.left),
            f"x-ratelimit-reset-{kind}": f"{self.full_in_seconds:.3f}s",
        }


@dataclass(frozen=True, slots=True)
class Rate:
    """Where a caller stands: requests a minute, and tokens a minute where they are counted."""

    requests: Bucket
    tokens: Bucket | None = None

    def headers(self) -> dict[str, str]:
        """OpenAI's x-ratelimit headers."""
        more = self.tokens.headers("tokens") if self.tokens is not None else {}
        return self.requests.headers("requests") | more

    def refusal(self, kind: str, seconds: float) -> Refusal:
        """429: the bucket of `kind` lets nothing through for so many seconds."""
        bucket = self.tokens if kind == "tokens" and self.tokens is not None else self.requests
        return Refusal(
            f"Rate limit reached: {bucket.limit:,} {kind} a minute. Wait a moment and try again.",
            status=429,
            code="rate_limit_exceeded",
            kind=kind,
            headers=self.headers() | {"retry-after": str(max(1, round(seconds + 0.5)))},
        )
