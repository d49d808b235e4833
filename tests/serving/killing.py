"""An engine under a supervisor, clients that ask without pause, and what became of each request."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from modeling.serving.addresses import ALL, UnixAddress
from saas.processes import tail
from saas.stack import Stack
from saas.supervisor import Child, Supervisor
from tests.serving.made import MODELS, ROOT

LOOK_SECONDS = 0.2  # as `manage.py up` does
GIVE_UP_SECONDS = 60.0  # an engine that is not back by then is a failure of the test


@dataclass(slots=True)
class Asked:
    """One request from the client's side. `pieces` counts the texts of a stream, `tokens` what its usage says."""

    seconds: float
    status: int
    request_id: str
    pieces: int = 0
    tokens: int = 0
    is_whole: bool = False  # the answer came to its end
    error: str = ""


@dataclass
class Killed:
    """What the run has seen."""

    asked: list[Asked] = field(default_factory=list)
    outages: list[float] = field(
        default_factory=list
    )  # seconds from kill -9 to the next engine's first answer
    under_way: list[int] = field(default_factory=list)  # requests open at each kill


class Keeper:
    """The real supervisor with one child, looked after from the event loop of the main thread."""

    def __init__(self, folder: Path) -> None:
        (folder / "logs").mkdir()
        self.socket = folder / "engine.sock"
        places = {ALL: (UnixAddress(self.socket),)}
        stack = Stack(ROOT, folder, MODELS, self.socket, places, "127.0.0.1", 8000, {})
        self.said: list[str] = []
        self._supervisor = Supervisor(cwd=ROOT, say=self.said.append)
        (self.child,) = stack.engines()

    @property
    def pid(self) -> int:
        """The process of now, or the dead one while none runs."""
        assert self.child.process is not None
        return self.child.process.pid

    def story(self) -> str:
        """What the supervisor said and the engine wrote last."""
        return "\n".join([*self.said[-5:], tail(self.child.log_file, 30)])

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Child]:
        """Keep the engine up for the length of the block."""
        self._supervisor.start(self.child)
        looking = asyncio.create_task(self._look())
        try:
            yield self.child
        finally:
            looking.cancel()
            self._supervisor.stop()

    async def _look(self) -> None:
        while True:
            self._supervisor.look_after()
            await asyncio.sleep(LOOK_SECONDS)


class Load:
    """So many clients, each with its next request as soon as the last one is answered."""

    def __init__(self, http: httpx.AsyncClient, keeper: Keeper) -> None:
        self._http = http
        self._keeper = keeper
        self.found = Killed()
        self.open = 0
        self.is_over = False
        self._answered_by = 0  # the engine's pid when the last good answer came
        self._answered = asyncio.Event()

    async def ask(self, path: str, body: dict[str, Any]) -> None:
        """Ask until the run is over; anything but an HTTP answer is an error of the test."""
        while not self.is_over:
            begun = time.monotonic()
            self.open += 1
            try:
                response = await self._http.post(path, json=body)
            finally:
                self.open -= 1
            asked = _read(response, time.monotonic() - begun)
            self.found.asked.append(asked)
            if asked.is_whole:
                self._answered_by = self._keeper.pid
                self._answered.set()

    async def kill(self, chance: random.Random) -> None:
        """kill -9 while requests are under way, then wait for the next engine's first answer."""
        await self._answers_again(after=0)
        await asyncio.sleep(chance.uniform(0.3, 3.0))
        victim, begun = self._keeper.pid, time.monotonic()
        os.kill(victim, signal.SIGKILL)
        self.found.under_way.append(self.open)
        await self._answers_again(after=victim)
        self.found.outages.append(time.monotonic() - begun)

    async def _answers_again(self, *, after: int) -> None:
        """Return once an engine other than process `after` has answered."""
        until = time.monotonic() + GIVE_UP_SECONDS
        while self._answered_by in (0, after):
            self._answered.clear()
            waiting = asyncio.ensure_future(self._answered.wait())
            done, _ = await asyncio.wait({waiting}, timeout=until - time.monotonic())
            assert done, self._keeper.story()


def _read(response: httpx.Response, seconds: float) -> Asked:
    asked = Asked(seconds, response.status_code, response.headers.get("x-request-id", ""))
    if response.status_code != 200:
        asked.error = response.json()["error"]["code"]
    elif response.headers["content-type"].startswith("application/json"):
        asked.is_whole = True
        asked.tokens = response.json().get("usage", {}).get("total_tokens", 0)
    else:
        _read_events(response.text, asked)
    return asked


def _read_events(text: str, asked: Asked) -> None:
    for line in filter(None, text.split("\n\n")):
        data = line.removeprefix("data: ")
        if data == "[DONE]":
            asked.is_whole = True
            continue
        event = json.loads(data)
        if "error" in event:
            asked.error = event["error"]["code"]
            continue
        asked.tokens = (event.get("usage") or {}).get("total_tokens", asked.tokens)
        asked.pieces += sum(bool(choice["delta"].get("content")) for choice in event["choices"])
