"""The gateway's connection to Valkey: one for all, in order, and back by itself after a break."""

from __future__ import annotations

import asyncio
import os
import secrets

import pytest
from redis.exceptions import ConnectionError as Unreachable
from redis.exceptions import ResponseError

from modeling.serving.gateway_valkey import REST_SECONDS, Script, ValkeyPipe
from saas.lib import valkey
from tests.serving.gateway_process import Proxy

pytestmark = pytest.mark.asyncio


async def test_many_at_once_get_their_own_answers() -> None:
    pipe, name = ValkeyPipe(os.environ["REDIS_URL"]), secrets.token_hex(8)
    await asyncio.gather(*(pipe.call("SET", f"{name}:{n}", n, "EX", 60) for n in range(200)))
    found = await asyncio.gather(*(pipe.call("GET", f"{name}:{n}") for n in range(200)))
    assert found == [str(n).encode() for n in range(200)]
    with pytest.raises(ResponseError):
        await pipe.call("GET")
    assert await pipe.call("GET", f"{name}:7") == b"7"
    await pipe.close()


async def test_scripts_that_valkey_does_not_have_yet() -> None:
    pipe, name = ValkeyPipe(os.environ["REDIS_URL"]), secrets.token_hex(8)
    script = Script.of(f"-- {name}\nreturn redis.call('INCRBY', KEYS[1], ARGV[1])")
    told = Script.of(f"-- told {name}\nreturn redis.call('INCRBY', KEYS[1], ARGV[1])")
    assert await pipe.run(script, [name], 3) == 3
    assert await pipe.run(script, [name], 3) == 6
    await pipe.tell(told, [name], 10)
    await pipe.tell(told, [name], 10)
    await pipe.close()  # after what was told
    assert valkey.client().getdel(name) == b"26"


async def test_it_comes_back() -> None:
    with Proxy(os.environ["REDIS_URL"]).running() as proxy:
        pipe = ValkeyPipe(proxy.address)
        assert await pipe.call("PING") == b"PONG"
        proxy.cut()
        await asyncio.sleep(0.1)
        for _ in range(2):
            with pytest.raises(Unreachable):
                await pipe.call("PING")
        proxy.open()
        await asyncio.sleep(REST_SECONDS + 0.05)
        assert await pipe.call("PING") == b"PONG"
        await pipe.close()


async def test_a_silent_valkey_is_given_up() -> None:
    with Proxy(os.environ["REDIS_URL"]).running() as proxy:
        pipe = ValkeyPipe(proxy.address)
        assert await pipe.call("PING") == b"PONG"
        proxy.freeze()
        async with asyncio.timeout(5):
            with pytest.raises(Unreachable):
                await pipe.call("PING")
        await pipe.close()
