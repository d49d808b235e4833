"""One connection to Valkey for all requests of an event loop: commands of one turn leave in one write."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections import deque
from dataclasses import dataclass
from typing import Any, cast

import hiredis
from redis.asyncio.connection import parse_url
from redis.exceptions import ConnectionError as Unreachable
from redis.exceptions import RedisError, ResponseError

ANSWER_SECONDS = 2.0
CONNECT_SECONDS = 2.0
REST_SECONDS = 0.3  # after a failed attempt to connect, so that nobody waits for the next one
Word = str | bytes | int | float


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script and the digest that names it."""

    text: str
    digest: str

    @classmethod
    def of(cls, text: str) -> Script:
        """Name a script as Valkey does."""
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


class ValkeyPipe:
    """Speaks for one event loop. After a break the next call connects again; nothing is ever sent twice."""

    def __init__(self, url: str) -> None:
        self._place: dict[str, Any] = dict(parse_url(url))
        self._is_tls = url.startswith("rediss:")
        self._link: _Link | None = None
        self._connecting: asyncio.Task[_Link] | None = None
        self._rests_until = 0.0

    async def call(self, *words: Word) -> Any:
        """The answer to one command; raises RedisError."""
        link = self._link
        if link is None or link.is_lost:
            link = await self._connected()
        return await link.send(words)

    async def run(self, script: Script, keys: list[str], *words: Word) -> Any:
        """The answer of a Lua script; raises RedisError."""
        try:
            return await self.call("EVALSHA", script.digest, len(keys), *keys, *words)
        except ResponseError as error:
            if not str(error).startswith("NOSCRIPT"):
                raise
        return await self.call("EVAL", script.text, len(keys), *keys, *words)

    async def tell(self, script: Script, keys: list[str], *words: Word) -> None:
        """Run a script whose answer nobody waits for; raises RedisError without a connection."""
        rest = (len(keys), *keys, *words)
        link = self._link
        if link is None or link.is_lost:
            link = await self._connected()
        link.send(("EVALSHA", script.digest, *rest)).add_done_callback(
            lambda told: link.send(("EVAL", script.text, *rest)) if _is_unknown(told) else None
        )

    async def close(self) -> None:
        """Close the connection once what was told has been answered; calls under way end within ANSWER_SECONDS."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self._link is not None:
            await self._link.close()

    async def _connected(self) -> _Link:
        if asyncio.get_running_loop().time() < self._rests_until:
            raise Unreachable("Valkey was not reachable a moment ago")
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())
            self._connecting.add_done_callback(_heard)  # all who waited may have left
        return await asyncio.shield(self._connecting)

    async def _connect(self) -> _Link:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                link = await self._open(loop)
                await asyncio.gather(*map(link.send, self._greeting()))
            self._link = link
            return link
        except (OSError, TimeoutError, RedisError) as error:
            self._rests_until = loop.time() + REST_SECONDS
            raise Unreachable(f"Valkey is not reachable ({type(error).__name__})") from error
        finally:
            self._connecting = None

    async def _open(self, loop: asyncio.AbstractEventLoop) -> _Link:
        secure = ssl.create_default_context() if self._is_tls else None
        if "path" in self._place:
            return (await loop.create_unix_connection(_Link, self._place["path"]))[1]
        host, port = self._place.get("host", "localhost"), self._place.get("port", 6379)
        return (await loop.create_connection(_Link, host, port, ssl=secure))[1]

    def _greeting(self) -> list[tuple[Word, ...]]:
        """Password and database, where the address names them."""
        words: list[tuple[Word, ...]] = []
        if self._place.get("password"):
            names = [self._place["username"]] if self._place.get("username") else []
            words.append(("AUTH", *names, self._place["password"]))
        if self._place.get("db"):
            words.append(("SELECT", self._place["db"]))
        return words


def _is_unknown(told: asyncio.Future[Any]) -> bool:
    """Whether Valkey does not have the script; whatever else went wrong is nobody's."""
    error = None if told.cancelled() else told.exception()
    return isinstance(error, ResponseError) and str(error).startswith("NOSCRIPT")


def _heard(done: asyncio.Future[Any]) -> None:
    if not done.cancelled():
        done.exception()


class _Link(asyncio.Protocol):
    """A connection: answers come in the order of the commands."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(replyError=ResponseError)
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._unsent: list[bytes] = []
        self._watch: asyncio.TimerHandle | None = None
        self._transport: asyncio.WriteTransport | None = None
        self.is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio: the connection stands."""
        self._transport = cast(asyncio.WriteTransport, transport)
        self._watch = self._loop.call_later(ANSWER_SECONDS, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Asyncio: it is gone; everybody who waits is told."""
        self.is_lost = True
        if self._watch is not None:
            self._watch.cancel()
        while self._waiting:
            future, _ = self._waiting.popleft()
            if not future.done():
                future.set_exception(Unreachable("the connection to Valkey broke"))

    def data_received(self, data: bytes) -> None:
        """Asyncio: answers."""
        self._reader.feed(data)
        while (answer := self._reader.gets()) is not False:
            future, _ = self._waiting.popleft()
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    def send(self, words: tuple[Word, ...]) -> asyncio.Future[Any]:
        """Its answer, later."""
        future = self._loop.create_future()
        self._waiting.append((future, self._loop.time()))
        if not self._unsent:
            self._loop.call_soon(self._write)
        self._unsent.append(hiredis.pack_command(words))  # type: ignore[arg-type] # its stub: one word
        return future

    def _write(self) -> None:
        data, self._unsent = b"".join(self._unsent), []
        if self._transport is not None and not self.is_lost:
            self._transport.write(data)

    def _look(self) -> None:
        """Give the connection up when its oldest command has waited too long."""
        if self._waiting and self._loop.time() - self._waiting[0][1] > ANSWER_SECONDS:
            self._give_up()
            return
        self._watch = self._loop.call_later(ANSWER_SECONDS / 2, self._look)

    def _give_up(self) -> None:
        self.is_lost = True
        if self._transport is not None:
            self._transport.abort()

    async def close(self) -> None:
        while last := [future for future, _ in self._waiting]:
            if (await asyncio.wait(last, timeout=ANSWER_SECONDS))[1]:
                break
        self._give_up()
