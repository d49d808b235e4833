"""A tenant's opening is read once and then reused with the same answer; nobody else ever gets it; purges zero it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch

from modeling.serving.prefixes import Prefixes, PrefixKey
from modeling.serving.store import CacheKey
from tests.serving.made import Artifacts
from tests.serving.tiny_talks import talks, write_tiny

pytestmark = pytest.mark.real_weights
SYSTEM = "You answer the people of one clinic, briefly and politely. " * 8


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("models"))


def key(number: int, tenant: str = "acme", version: CacheKey | None = None) -> PrefixKey:
    return PrefixKey(tenant, version, tuple(range(number, number + 20)))


@pytest.mark.asyncio
async def test_it_works(tiny: Path) -> None:
    async with talks(tiny) as with_reuse, talks(tiny, prefixes=Prefixes(max_bytes=0)) as without:
        first = await with_reuse.say("One?", system=SYSTEM)
        again = await with_reuse.say("One?", system=SYSTEM)
        other = await with_reuse.say("Another one?", system=SYSTEM)
        plain = [await without.say(text, system=SYSTEM) for text in ("One?", "Another one?")]
        assert again == first  # to the last bit: the same sums
        assert [first[0], other[0]] == [text for text, _, _ in plain]
        torch.testing.assert_close(torch.tensor(first[1]), torch.tensor(plain[0][1]), rtol=1e-5, atol=1e-5)
        assert (with_reuse.runner.prefixes.hits, with_reuse.runner.prefixes.misses) == (2, 1)
        assert without.runner.prefixes.size_bytes == 0


@pytest.mark.asyncio
async def test_equal_text_of_another_tenant_is_read_anew(tiny: Path) -> None:
    async with talks(tiny) as engine:
        prefixes = engine.runner.prefixes
        mine = await engine.say("One?", system=SYSTEM, tenant="acme")
        theirs = await engine.say("One?", system=SYSTEM, tenant="globex")
        assert (prefixes.hits, prefixes.misses) == (0, 2)
        assert theirs == mine
        await engine.say("Two?", system=SYSTEM, tenant="globex")  # the control
        assert (prefixes.hits, prefixes.misses) == (1, 2)
        assert engine.runner.purge("globex", None) == 1
        await engine.say("Three?", system=SYSTEM, tenant="acme")
        await engine.say("Three?", system=SYSTEM, tenant="globex")
        assert (prefixes.hits, prefixes.misses) == (2, 3)


@pytest.mark.asyncio
async def test_a_tuned_versions_opening_is_its_own(tiny: Path, tmp_path: Path) -> None:
    made = Artifacts(tmp_path).chat("acme", width=32)
    async with talks(tiny) as engine:
        await engine.say("One?", system=SYSTEM)
        await engine.say("One?", system=SYSTEM, artifact=made.body)
        assert engine.runner.prefixes.hits == 0
        await engine.say("Two?", system=SYSTEM, artifact=made.body)
        assert engine.runner.prefixes.hits == 1
        version = made.body["version"]
        assert engine.runner.purge("acme", version) == 2  # its slot and its opening
        await engine.say("Two?", system=SYSTEM)
        assert engine.runner.prefixes.hits == 2  # the plain base's is still there


@pytest.mark.asyncio
async def test_openings_of_conversations_that_run_together(tiny: Path) -> None:
    async with talks(tiny) as engine:
        asks = [(f"Question {n}?", f"t{n % 3}") for n in range(9)]
        alone = [await engine.say(text, system=SYSTEM, tenant=tenant) for text, tenant in asks]
        both = await asyncio.gather(
            *(engine.say(text, system=SYSTEM, tenant=tenant) for text, tenant in asks)
        )
        assert [text for text, _, _ in both] == [text for text, _, _ in alone]


def test_what_leaves_is_zero_and_the_bounds_hold() -> None:
    prefixes = Prefixes(max_bytes=4_000)
    held = {name: torch.ones(250) for name in "abcdef"}  # 1,000 bytes each
    for number, name in enumerate("abc"):
        prefixes.keep(key(number), held[name], begun_at=0)
    assert not held["a"].any()  # one tenant holds half at most
    assert prefixes.size_bytes == 2_000
    for number, name in enumerate("def"):
        prefixes.keep(key(number, f"other-{number}"), held[name], begun_at=0)
    assert not held["b"].any()
    assert held["c"].all()
    assert (prefixes.size_bytes, prefixes.evictions) == (4_000, 2)
    assert prefixes.takes(20, 100)
    assert not prefixes.takes(21, 100)
    assert not prefixes.takes(10, 1)


def test_a_purge_takes_what_was_being_read() -> None:
    prefixes = Prefixes()
    version = CacheKey("acme", "v1", b"x")
    kept = [torch.ones(10) for _ in range(3)]
    prefixes.keep(key(0), kept[0], begun_at=0)
    prefixes.keep(key(0, version=version), kept[1], begun_at=0)
    prefixes.keep(key(0, "globex"), kept[2], begun_at=0)
    assert prefixes.purge("acme", "v1") == 1
    assert [bool(one.any()) for one in kept] == [True, False, True]
    assert prefixes.purge("acme", None) == 1
    assert [bool(one.any()) for one in kept] == [False, False, True]
    prefixes.keep(key(0), torch.ones(10), begun_at=0)  # read before the purges
    assert prefixes.find(key(0)) is None
    prefixes.keep(key(0), torch.ones(10), begun_at=prefixes.purges)
    assert prefixes.find(key(0)) is not None
