"""One look every few seconds for all sockets of one caller on one job: still welcome, and was an event lost?"""

from __future__ import annotations

import asyncio
from typing import Protocol

from channels.db import database_sync_to_async

from modeling import watching

LOOK_SECONDS = 4.0  # with the query itself under the 5 s in which a revocation must bite


class Listener(Protocol):
    """A socket that wants to hear what a look found."""

    async def looked(self, *, is_welcome: bool, last_seq: int) -> None:
        """Close when not welcome; read the gap when behind."""


class Look:
    """The sockets of one watch in this process, and the task that looks for them."""

    def __init__(self, watch: watching.Watch) -> None:
        self.watch = watch
        self.listeners: set[Listener] = set()
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        # Callers look at different moments: a thousand sockets opened at once do not ask the database at once.
        await asyncio.sleep(LOOK_SECONDS * (hash(self.watch) % 100) / 100)
        while True:
            is_welcome, last_seq = await database_sync_to_async(watching.look)(self.watch)
            for listener in list(self.listeners):
                await listener.looked(is_welcome=is_welcome, last_seq=last_seq)
            await asyncio.sleep(LOOK_SECONDS)


_looks: dict[tuple[asyncio.AbstractEventLoop, watching.Watch], Look] = {}


def join(watch: watching.Watch, listener: Listener) -> None:
    """Have the listener told; starts the look with its first listener."""
    key = (asyncio.get_running_loop(), watch)
    if key not in _looks:
        _looks[key] = Look(watch)
    _looks[key].listeners.add(listener)


def leave(watch: watching.Watch, listener: Listener) -> None:
    """Stop telling the listener; the look ends with its last one."""
    key = (asyncio.get_running_loop(), watch)
    look = _looks.get(key)
    if look is None:
        return
    look.listeners.discard(listener)
    if not look.listeners:
        _looks.pop(key).task.cancel()
