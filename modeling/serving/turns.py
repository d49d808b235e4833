"""Work of tenants in the engine's side threads: one job of each at a time, so that many of one delay nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar
from weakref import WeakValueDictionary

Result = TypeVar("Result")


class Turns:
    """The threads' queue never holds more than one job of a tenant. Used on one event loop."""

    def __init__(self, threads: Executor) -> None:
        self._threads = threads
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # by tenant

    async def run(self, tenant: str, work: Callable[..., Result], *arguments: object) -> Result:
        """What `work` returns. The turn ends with the work, also when nobody waits for it any more."""
        turn = self._turns.get(tenant)
        if turn is None:
            turn = self._turns[tenant] = asyncio.Lock()
        await turn.acquire()
        try:
            job = asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
        except RuntimeError:  # the threads are shut down
            turn.release()
            raise
        job.add_done_callback(lambda _: turn.release())
        return await asyncio.shield(job)
