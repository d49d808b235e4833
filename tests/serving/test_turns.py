"""Many recommendations of one tenant delay nobody else: the side threads also tokenise and load models for all."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from modeling.core.recommend_ranking import rank
from modeling.serving import recommending
from modeling.serving.asks import Ask
from modeling.serving.runners import Runners
from tests.serving.made import Artifacts, Made

pytestmark = pytest.mark.asyncio


async def nobody(part: dict[str, Any]) -> None:
    raise AssertionError("a recommendation has no parts")


def ask(made: Made) -> Ask:
    body = {"base": "minilm-l6", "artifact": made.body, "k": 3, "history": ["item-1"]}
    return Ask("recommend", made.tenant, body, asyncio.get_running_loop().time() + 30)


async def test_a_tenant_has_one_job_in_the_threads_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock, goes_on = threading.Lock(), threading.Event()
    running, most = [0], [0]

    def held(model: Any, *rest: Any) -> Any:
        """The loud tenant's catalogue is the larger one; its jobs last until the test lets them."""
        if len(model.ids) == 60:
            with lock:
                running[0] += 1
                most[0] = max(most[0], running[0])
            goes_on.wait(20)
            with lock:
                running[0] -= 1
        return rank(model, *rest)

    monkeypatch.setattr(recommending, "rank", held)
    artifacts, runners = Artifacts(tmp_path), Runners(tmp_path)
    loud, quiet = artifacts.items("loud", count=60), artifacts.items("quiet")
    many = [asyncio.create_task(runners.do(ask(loud), nobody)) for _ in range(12)]
    await asyncio.sleep(0.2)
    try:
        async with asyncio.timeout(10):
            found = await runners.do(ask(quiet), nobody)
        assert len(found["items"]) == 3
        for task in many[1:4]:
            task.cancel()  # who leaves makes no room for a second one
        many[0].cancel()
        await asyncio.sleep(0.2)
        assert most[0] == 1
    finally:
        goes_on.set()
    answers = await asyncio.gather(*many, return_exceptions=True)
    assert sum(isinstance(one, dict) for one in answers) == 8
    assert most[0] == 1
    await runners.close()
