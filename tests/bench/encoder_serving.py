"""The encoder's runner under clients: batching while busy, misses of adapters, and more tenants than slots."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from modeling.core.types import Tensors
from modeling.serving.asks import Ask
from modeling.serving.encoder_engines import EncoderEngine
from modeling.serving.encoding import EncoderRunner
from modeling.serving.store import Reference
from tests.serving.made import Artifacts, Made, head_parts

TEXTS = (
    "my card was charged twice",
    "Type 2 diabetes mellitus with diabetic chronic kidney disease, stage three, without long-term use of insulin",
    "Fracture of lower end of radius",
    "I sent the parcel back two weeks ago and have not heard anything about my refund, can you look into it?",
)
ROUNDS, CLIENTS = 3, 64

Figure = tuple[str, Sequence[float], float | None, bool]


async def figures(
    runner: EncoderRunner, engine: EncoderEngine, adapters: Sequence[Tensors], folder: Path, *, versions: int
) -> list[Figure]:
    """Name, value of each round, what is asked, and whether that is a least.

    `adapters`: of every linear layer, a tenant's each; `versions`: how many to put into the slots in turn.
    """
    running = asyncio.create_task(runner.run())
    await asyncio.sleep(0.2)
    runner.serve_with(engine)
    made = Artifacts(folder)
    heads = [made.head(f"h{n}", classes=21, seed=n) for n in range(CLIENTS)]
    loras = [made.lora(f"l{n}", rank=8, seed=n) for n in range(versions)]
    tensors, config = head_parts(5, 0)
    config |= {"method": "lora", "rank": 8, "alpha": 8}
    large = [made.seal(tensors | own, config, tenant=f"a{n}") for n, own in enumerate(adapters)]
    found = [*await _busy(runner, heads), *await _misses(runner, loras[:24], "query and value")]
    found += await _misses(runner, large, "every linear layer")
    found += await _working_set(runner, loras)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return found


async def _ask(runner: EncoderRunner, one: Made, text: str) -> None:
    loop = asyncio.get_running_loop()
    await runner.classify(
        Ask("classify", one.tenant, {"inputs": [text], "artifact": one.body}, loop.time() + 60)
    )


async def _requests(runner: EncoderRunner, tenants: Sequence[Made], count: int, clients: int) -> float:
    """CPU seconds of `count` requests by so many clients, tenants in turn."""
    turns = itertools.cycle(tenants)
    texts = itertools.cycle(TEXTS)
    left = iter(range(count))

    async def client() -> None:
        for _ in left:
            await _ask(runner, next(turns), next(texts))

    began = time.process_time()
    await asyncio.gather(*(client() for _ in range(clients)))
    return time.process_time() - began


async def _waits(runner: EncoderRunner, one: Made, budgets: Sequence[int]) -> dict[int, float]:
    """Median milliseconds of a request by one client, the budgets in turn."""
    taken: dict[int, list[float]] = {tokens: [] for tokens in budgets}
    for turn in range(120):
        for tokens in budgets if turn % 2 else reversed(budgets):
            runner.queue.budget_tokens = tokens
            began = time.perf_counter()
            await _ask(runner, one, TEXTS[0])
            taken[tokens].append((time.perf_counter() - began) * 1000)
    return {tokens: statistics.median(found) for tokens, found in taken.items()}


async def _busy(runner: EncoderRunner, heads: Sequence[Made]) -> list[Figure]:
    """Taking all that waits beside taking one row at a time."""
    budget = runner.queue.budget_tokens
    taken: dict[int, list[float]] = {budget: [], 1: []}
    wait: list[float] = []
    await _requests(runner, heads, 128, CLIENTS)
    for _ in range(ROUNDS):
        for tokens in taken:
            runner.queue.budget_tokens = tokens
            taken[tokens].append(await _requests(runner, heads, 256, CLIENTS))
        waits = await _waits(runner, heads[0], [budget, 1])
        wait.append(waits[budget] / waits[1])
    runner.queue.budget_tokens = budget
    gain = [alone / busy for alone, busy in zip(taken[1], taken[budget], strict=True)]
    return [
        (f"{runner.engine}: batch while busy / unbatched at 64 clients", gain, 1.2, True),
        (f"{runner.engine}: p50 at 1 client, the same", wait, 1.05, False),
        (
            f"{runner.engine}: requests per CPU second at 64 clients",
            [256 / s for s in taken[budget]],
            None,
            True,
        ),
    ]


async def _misses(runner: EncoderRunner, tenants: Sequence[Made], what: str) -> list[Figure]:
    """From the sealed file to the slot."""
    taken = []
    for one in tenants:
        reference = Reference.parse(one.tenant, one.body)
        began = time.perf_counter()
        async with runner.heads.pinned(reference):
            taken.append((time.perf_counter() - began) * 1000)
    for one in tenants:
        runner.heads.purge(one.tenant, None)
    return [(f"adapter miss, {what}: median ms", [statistics.median(taken)], 5, False)]


async def _working_set(runner: EncoderRunner, tenants: Sequence[Made]) -> list[Figure]:
    """All tenants in turn, twice as many as slots, so that every request misses; beside as many as fit."""
    few = tenants[: len(tenants) // 2]
    rates: dict[int, list[float]] = {len(few): [], len(tenants): []}
    for group in (few, tenants):
        await _requests(runner, group, len(group), 16)
    for _ in range(ROUNDS):
        for group in (few, tenants):
            await _requests(runner, group, len(group), 16)  # the other group's tenants leave
            count = 2 * len(tenants)
            rates[len(group)].append(count / await _requests(runner, group, count, 16))
    kept = [many / fit for many, fit in zip(rates[len(tenants)], rates[len(few)], strict=True)]
    return [("working set twice the slots / one that fits", kept, 0.5, True)]
