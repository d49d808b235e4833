"""All bases of one engine process: loaded when first needed, asked by operation, emptied by purge."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from modeling.core import bases
from modeling.core.heads import TABULAR
from modeling.core.types import CoreError
from modeling.serving.asks import Ask
from modeling.serving.chatting import ChatRunner, Send
from modeling.serving.encoding import EncoderRunner
from modeling.serving.engine_metrics import snapshot
from modeling.serving.recommending import RecommendRunner
from modeling.serving.store import ArtifactStore, Reference
from modeling.serving.tabling import TableRunner
from modeling.serving.turns import Turns
from modeling.serving.wire import VERSION, EngineRefusal

KINDS: dict[str, type[EncoderRunner | ChatRunner]] = {"minilm-l6": EncoderRunner, "smollm2-135m": ChatRunner}


@runtime_checkable
class Warmable(Protocol):
    """A runner that can bring a version into its slots before anybody asks."""

    async def warm(self, reference: Reference) -> None: ...


class Runners:
    """The engine without its socket. Everything here runs on the event loop; the runners own their threads."""

    def __init__(self, models_dir: Path, served: Sequence[str] = tuple(KINDS)) -> None:
        """`served`: the bases that this engine answers for."""
        self._models_dir = models_dir
        self._served = tuple(served)
        self._side = ThreadPoolExecutor(4, "side")
        self.store = ArtifactStore(self._side)
        turns = Turns(self._side)
        self._recommend = RecommendRunner(self.store, turns)
        self._tables = TableRunner(self.store, turns)
        self._loading: dict[str, asyncio.Task[EncoderRunner | ChatRunner]] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._started_at = time.monotonic()

    def warm(self, base: str) -> asyncio.Task[EncoderRunner | ChatRunner]:
        """Begin to load a base, once; a load that failed is tried again."""
        task = self._loading.get(base)
        if task is None or (task.done() and task.exception() is not None):
            task = self._loading[base] = asyncio.create_task(self._load(base), name=f"load {base}")
            task.add_done_callback(_look_at)
        return task

    async def _load(self, base: str) -> EncoderRunner | ChatRunner:
        kind = KINDS.get(base)
        if kind is None or base not in self._served:
            raise EngineRefusal("no_base", "This engine does not serve that base model.")
        try:
            folder = bases.path(self._models_dir, base)
        except CoreError as error:
            raise EngineRefusal("no_base", error.message) from error
        runner: EncoderRunner | ChatRunner
        if issubclass(kind, ChatRunner):
            runner = await kind.load(folder, self.store, self._side, device())
        else:
            runner = await kind.load(folder, self.store, self._side)
        running = asyncio.create_task(runner.run(), name=f"run {base}")
        self._running.add(running)
        return runner

    async def _runner(self, base: str) -> EncoderRunner | ChatRunner:
        return await asyncio.shield(self.warm(base))

    async def do(self, ask: Ask, send: Send) -> dict[str, Any]:
        """Answer one request; raises EngineRefusal. Only chat uses `send`."""
        if ask.op == "health":
            return self.health()
        if ask.op == "stats":
            return snapshot(self)
        if ask.op == "warm":
            await self._warm(ask)
            return {}
        if ask.op == "purge":
            version = None if ask.body.get("version") is None else ask.text("version")
            return {"purged": self.purge(ask.tenant, version)}
        if ask.op == "recommend":
            return await self._recommend.recommend(ask)
        if ask.op == "classify" and ask.text("base") == TABULAR:
            return await self._tables.classify(ask)
        runner = await self._runner(ask.text("base"))
        if ask.op == "chat" and isinstance(runner, ChatRunner):
            return await runner.chat(ask, send)
        if ask.op == "classify" and isinstance(runner, EncoderRunner):
            return await runner.classify(ask)
        if ask.op == "embed" and isinstance(runner, EncoderRunner):
            return await runner.embed(ask)
        raise EngineRefusal("wrong_task", "This model cannot do that.")

    async def _warm(self, ask: Ask) -> None:
        """Load what a request for this model would wait for; raises EngineRefusal."""
        reference, base = ask.reference, ask.text("base")
        if reference is not None:
            artifact = await self.store.get(reference)
            if base == TABULAR or artifact.config.get("task") == "recommendation":
                return
        runner = await self._runner(base)
        if reference is not None and isinstance(runner, Warmable):
            await runner.warm(reference)

    def purge(self, tenant: str, version: str | None) -> int:
        """Empty slots and RAM tier of a tenant, or of one of its versions; returns how many entries."""
        gone = self.store.purge(tenant, version)
        for runner in self.ready().values():
            gone += (
                runner.heads.purge(tenant, version)
                if isinstance(runner, EncoderRunner)
                else runner.purge(tenant, version)
            )
        return gone

    def ready(self) -> dict[str, EncoderRunner | ChatRunner]:
        """Runners of the bases that can answer now."""
        return {
            base: task.result()
            for base, task in self._loading.items()
            if task.done() and not task.cancelled() and task.exception() is None
        }

    def health(self) -> dict[str, Any]:
        """What can answer now: base -> ready | loading | installed | failed | missing, and the load."""
        ready = self.ready()
        return {
            "wire": VERSION,
            "pid": os.getpid(),
            "uptime_seconds": time.monotonic() - self._started_at,
            "bases": {base: self._state(base, ready) for base in self._served},
            "waiting_tokens": sum(runner.queue.waiting_tokens for runner in ready.values()),
            "store_bytes": self.store.size_bytes,
            "loads": self.store.loads,
            "counts": {base: _counts(runner) for base, runner in ready.items()},
            "encoder": next((one.engine for one in ready.values() if isinstance(one, EncoderRunner)), None),
        }

    def _state(self, base: str, ready: dict[str, EncoderRunner | ChatRunner]) -> str:
        if base in ready:
            return "ready"
        task = self._loading.get(base)
        if task is not None:
            return "failed" if task.done() else "loading"
        try:
            bases.path(self._models_dir, base)
        except CoreError:
            return "missing"
        return "installed"

    async def close(self) -> None:
        """Stop all loops and threads; whoever still waits is cancelled."""
        tasks = [*self._running, *self._loading.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for runner in self.ready().values():
            runner.close()
        self._side.shutdown(wait=False, cancel_futures=True)


def device() -> str:
    """Where decoders compute. An engine sees one device: CUDA_VISIBLE_DEVICES says which, or none."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def _look_at(task: asyncio.Task[Any]) -> None:
    """Take note of a failed load, which the next asker is told."""
    if not task.cancelled():
        task.exception()


def _counts(runner: EncoderRunner | ChatRunner) -> dict[str, int]:
    banks = runner.heads.banks if isinstance(runner, EncoderRunner) else runner.tunings.banks
    counts = {
        "slots": sum(bank.used for bank in banks),
        "evictions": sum(bank.evictions for bank in banks),
    }
    if isinstance(runner, EncoderRunner):
        return counts | {"batches": runner.batches, "rows": runner.rows}
    return counts | {"active": runner.active, "tokens": runner.tokens, "unheard": runner.unheard}
