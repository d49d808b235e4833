"""A used slot leaks nothing: what was forgotten is zero, and a fresh conversation says what a fresh engine says."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from modeling.serving.prefixes import Prefixes
from tests.serving.tiny_talks import Talks, talks, write_tiny

pytestmark = [pytest.mark.real_weights, pytest.mark.asyncio]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("models"))


async def leave_early(engine: Talks, number: int) -> None:
    """A conversation that is cancelled in the middle."""
    work = asyncio.create_task(engine.say(f"Secret {number}", tenant=f"gone-{number}", max_tokens=400))
    await asyncio.sleep(0.02 * number)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)


async def test_it_works(tiny: Path) -> None:
    async with talks(tiny, prefixes=Prefixes(max_bytes=0)) as fresh:
        wanted = [await fresh.say(f"Hello {n}?", max_tokens=12) for n in range(3)]
    async with talks(tiny, prefixes=Prefixes(max_bytes=0)) as used:
        await asyncio.gather(
            *(used.say("secret " * (7 * n), tenant=f"t{n}", max_tokens=3 + 5 * n) for n in range(12)),
            *(leave_early(used, n) for n in range(6)),
        )
        found = [await used.say(f"Hello {n}?", max_tokens=12) for n in range(3)]
        assert found == wanted  # tokens and their probabilities, to the last bit
        assert used.runner.unheard <= 6


async def test_forgotten_slots_are_zero(tiny: Path) -> None:
    async with talks(tiny) as engine:
        busy = asyncio.gather(*(engine.say("secret " * 30, max_tokens=10 + 9 * n) for n in range(6)))
        for _ in range(1000):
            if engine.runner.tokens:
                break
            await asyncio.sleep(0.001)
        assert engine.model._keys.any()  # the control
        await busy
        await asyncio.gather(*(leave_early(engine, n) for n in range(4)))
        await engine.idle()
        assert not engine.model._keys.any()
        assert not engine.model._values.any()


async def test_a_broken_step_ends_all_and_leaves_nothing(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with talks(tiny) as engine:
        wanted = await engine.say("Hello?")

        def broken(*_: object) -> None:
            raise ArithmeticError("a kernel failed")

        with monkeypatch.context() as patch:
            patch.setattr(engine.model, "step", broken)
            ends = await asyncio.gather(*(engine.say("Hello?") for _ in range(3)), return_exceptions=True)
        assert all(isinstance(end, ArithmeticError) for end in ends)
        assert not engine.model._keys.any()
        assert await engine.say("Hello?") == wanted
