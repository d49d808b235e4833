"""Idempotency-Key on the hot calls: the same key and body within a day is answered and billed once.

The key is claimed in Valkey before the engine is asked. The claim runs out soon unless it is renewed, so that a killed
gateway blocks its key for seconds; whoever takes it over bills under the first one's id. The answer is kept, sealed
under the tenant's key, where the tenant lets answers be kept; elsewhere a repeat is answered anew and billed once, a
few times: a key is for repeating what got lost, not for drawing another answer for nothing.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from redis.exceptions import RedisError

from billing.rates import LEVELS
from modeling.serving.gateway_call import Call
from modeling.serving.gateway_metrics import count
from modeling.serving.gateway_valkey import Script, ValkeyPipe
from saas.lib.errors import Conflict, Refusal

log = logging.getLogger("cloister.gateway")

LONGEST_KEY: Final = 255
KEPT_MILLISECONDS: Final = 24 * 3600 * 1000
CLAIM_MILLISECONDS: Final = 12_000
RENEW_SECONDS: Final = 4.0
MOST_ANSWER_BYTES: Final = 256 << 10
MOST_BYTES: Final = 64 << 20  # of a tenant in a day
MOST_ANSWERS: Final = 8  # of one key, where none is kept
ENTRY_BYTES: Final = 320  # what a key without an answer takes in Valkey, about
_NONCE_BYTES = 12

# KEYS: entry, bytes of the day. ARGV: body's digest, id to bill under, milliseconds of the claim, most bytes, bytes,
# most answers.
_CLAIM = Script.of(f"""{LEVELS}
local held = redis.call('HMGET', KEYS[1], 'digest', 'id', 'until', 'answer', 'answered')
if held[1] then
  if held[1] ~= ARGV[1] then return {{'other', ''}} end
  if held[4] then return {{'done', held[4]}} end
  if tonumber(held[3]) > now() then return {{'running', ''}} end
  if (tonumber(held[5]) or 0) >= tonumber(ARGV[6]) then return {{'often', ''}} end
  redis.call('HSET', KEYS[1], 'until', now() + ARGV[3])
  return {{'mine', held[2]}}
end
if (tonumber(redis.call('GET', KEYS[2])) or 0) + ARGV[5] > tonumber(ARGV[4]) then return {{'full', ''}} end
redis.call('HSET', KEYS[1], 'digest', ARGV[1], 'id', ARGV[2], 'until', now() + ARGV[3])
redis.call('PEXPIRE', KEYS[1], {KEPT_MILLISECONDS})
redis.call('INCRBY', KEYS[2], ARGV[5])
redis.call('PEXPIRE', KEYS[2], {KEPT_MILLISECONDS}, 'NX')
return {{'mine', ARGV[2]}}
""")
# KEYS: the same. ARGV: id, milliseconds to hold on (0: done), answer or '', most bytes, how often it was answered now.
_RENEW = Script.of(f"""{LEVELS}
if redis.call('HGET', KEYS[1], 'id') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'until', now() + ARGV[2])
if tonumber(ARGV[5]) > 0 then redis.call('HINCRBY', KEYS[1], 'answered', ARGV[5]) end
local size = string.len(ARGV[3])
if size > 0 and (tonumber(redis.call('GET', KEYS[2])) or 0) + size <= tonumber(ARGV[4]) then
  redis.call('HSET', KEYS[1], 'answer', ARGV[3])
  redis.call('INCRBY', KEYS[2], size)
  redis.call('PEXPIRE', KEYS[2], {KEPT_MILLISECONDS}, 'NX')
end
return 1
""")


class Claim:
    """One request's hold on its key, while it is under way."""

    def __init__(self, valkey: ValkeyPipe, keys: list[str], secret: bytes, id: str) -> None:  # noqa: A002
        self.id = id
        self._valkey = valkey
        self._keys = keys
        self._secret = secret
        self._renewing = asyncio.create_task(self._renew())

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                await self._valkey.run(_RENEW, self._keys, self.id, CLAIM_MILLISECONDS, b"", MOST_BYTES, 0)
            except RedisError as error:
                log.warning("an idempotency key was not renewed (%s)", type(error).__name__)

    async def keep(self, content: bytes) -> None:
        """Keep an answer for repeats; a large one is made anew instead."""
        if len(content) > MOST_ANSWER_BYTES:
            return
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + AESGCM(self._secret).encrypt(nonce, content, self._keys[0].encode())
        await self._end(sealed)

    async def _end(self, sealed: bytes, answered: int = 0) -> None:
        try:
            await self._valkey.run(_RENEW, self._keys, self.id, 0, sealed, MOST_BYTES, answered)
        except RedisError as error:
            log.warning("an idempotency key was not settled (%s)", type(error).__name__)

    async def release(self, *, is_answered: bool) -> None:
        """Let a repeat in, which is answered unless an answer was kept."""
        self._renewing.cancel()
        await self._end(b"", int(is_answered))


async def once(call: Call, name: str, body: bytes, answer: Callable[[], Awaitable[None]]) -> None:
    """Answer under an Idempotency-Key, or as it was answered before.

    Raises Conflict (409) while the first is under way, Refusal 422 for another body, 429 for too many keys, 503 when
    nothing can be promised.
    """
    if len(name) > LONGEST_KEY:
        raise Refusal("An Idempotency-Key has at most 255 characters.", param="Idempotency-Key")
    exchange, tenant = call.exchange, call.admission.caller.tenant
    secret = await call.doors.secret(tenant.pk)
    place = hmac.digest(secret, f"{exchange.path}\n{name}".encode(), "sha256").hex()
    keys = [f"t:{tenant.pk}:once:{place}", f"t:{tenant.pk}:once-bytes"]
    digest = hmac.digest(secret, body, "sha256")
    words = (digest, exchange.request_id, CLAIM_MILLISECONDS, MOST_BYTES, ENTRY_BYTES, MOST_ANSWERS)
    try:
        verdict, found = await call.limiter.valkey.run(_CLAIM, keys, *words)
    except RedisError as error:
        raise _refusal("unknown") from error
    if verdict == b"done":
        await _again(call, secret, keys[0], found)
    elif verdict == b"mine":
        await _first(call, Claim(call.limiter.valkey, keys, secret, found.decode()), answer)
    else:
        raise _refusal(verdict.decode())


async def _first(call: Call, claim: Claim, answer: Callable[[], Awaitable[None]]) -> None:
    call.exchange.billed_id = claim.id
    call.exchange.keep = claim.keep
    try:
        await answer()
    finally:
        await claim.release(is_answered=call.exchange.seen.status == 200)


async def _again(call: Call, secret: bytes, place: str, sealed: bytes) -> None:
    """The remembered answer; it counts as a request, and is not billed again."""
    try:
        content = AESGCM(secret).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], place.encode())
    except InvalidTag as error:
        raise _refusal("unknown") from error
    rate = await call.limiter.take(call.admission)
    call.exchange.extra.update(rate.headers() if rate is not None else {})
    count("idempotent_replays")
    await call.exchange.answer_with(200, content, {"idempotent-replayed": "true"})


def _refusal(verdict: str) -> Refusal:
    """Why a key is not taken: running, other, often, full, or unknown where nothing can be promised."""
    if verdict == "running":
        sentence = "A request with this Idempotency-Key is still running."
        return Conflict(sentence, code="idempotency_in_progress", headers={"retry-after": "1"})
    if verdict == "other":
        sentence = "This Idempotency-Key was used with another body. Send a new key."
        return Refusal(sentence, status=422, code="idempotency_key_reused")
    if verdict == "often":
        sentence = f"This Idempotency-Key was answered {MOST_ANSWERS} times. Use another one."
        return Refusal(sentence, status=422, code="idempotency_key_used_up")
    if verdict == "full":
        sentence = "Too many Idempotency-Keys in one day. Send requests without one."
        wait = {"retry-after": "3600"}
        return Refusal(sentence, status=429, code="too_many_idempotency_keys", kind="requests", headers=wait)
    return Refusal(
        "Whether this Idempotency-Key was used cannot be looked up now. Try again shortly.",
        status=503,
        code="idempotency_unavailable",
        kind="server_error",
        headers={"retry-after": "1"},
    )
