"""A slot never shows its last tenant: zeroed before reuse, pinned while in flight, emptied by purge."""

from __future__ import annotations

import asyncio

import pytest
import torch

from modeling.serving.bank import PLAIN, SlotBank
from modeling.serving.store import CacheKey
from modeling.serving.wire import EngineRefusal


def key(name: str, tenant: str = "acme") -> CacheKey:
    return CacheKey(tenant, name, name.encode())


def bank(slots: int = 2) -> SlotBank:
    return SlotBank({"weight": (4, 3), "bias": (4,)}, slots=slots)


async def put(into: SlotBank, name: str, *, rows: int = 4, value: float = 1.0, tenant: str = "acme") -> int:
    async def read() -> dict[str, torch.Tensor]:
        return {"weight": torch.full((rows, 3), value)}

    return await into.pin(key(name, tenant), read)


@pytest.mark.asyncio
async def test_it_works() -> None:
    made = bank()
    slot = await put(made, "one", value=7.0)
    assert slot != PLAIN
    assert made.tables["weight"][slot].eq(7.0).all()
    assert not made.tables["weight"][PLAIN].any()


@pytest.mark.asyncio
async def test_a_reused_slot_holds_nothing_of_its_last_tenant() -> None:
    made = bank(slots=1)

    async def both() -> dict[str, torch.Tensor]:
        return {"weight": torch.full((4, 3), 9.0), "bias": torch.full((4,), 9.0)}

    first = await made.pin(key("globex", "globex"), both)
    assert made.tables["bias"][first].eq(9.0).all()  # the control: there was something to leak
    made.release(first)
    second = await put(made, "small", rows=2)  # brings neither bias nor rows 2 and 3
    assert second == first
    assert not made.tables["bias"][second].any()
    assert not made.tables["weight"][second, 2:].any()
    assert made.holders == {"weight": 1, "bias": 0}


@pytest.mark.asyncio
async def test_the_least_recently_used_goes_first() -> None:
    made = bank()
    for name in ("one", "two", "one", "three"):
        made.release(await put(made, name))
    assert key("one") in made
    assert key("two") not in made
    assert made.evictions == 1


@pytest.mark.asyncio
async def test_a_pinned_slot_is_waited_for_not_taken() -> None:
    made = bank(slots=1)
    slot = await put(made, "one")
    waiting = asyncio.create_task(put(made, "two"))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    assert key("one") in made
    made.release(slot)
    assert await waiting == slot


@pytest.mark.asyncio
async def test_many_askers_cause_one_load() -> None:
    made, loads = bank(), 0

    async def read() -> dict[str, torch.Tensor]:
        nonlocal loads
        loads += 1
        await asyncio.sleep(0.01)
        return {"weight": torch.ones(4, 3)}

    slots = await asyncio.gather(*(made.pin(key("one"), read) for _ in range(20)))
    assert len(set(slots)) == 1
    assert loads == 1


@pytest.mark.asyncio
async def test_purge_zeroes_now_or_when_the_last_row_leaves() -> None:
    made = bank(slots=3)
    idle, busy, other = await put(made, "a"), await put(made, "b"), await put(made, "c", tenant="globex")
    made.release(idle)
    assert made.purge("acme", None) == 2
    assert not made.tables["weight"][idle].any()
    assert made.tables["weight"][busy].any()  # in flight
    made.release(busy)
    assert not made.tables["weight"][busy].any()
    assert made.tables["weight"][other].any()
    assert key("c", "globex") in made


@pytest.mark.asyncio
async def test_a_version_purged_while_it_loads_is_refused() -> None:
    made = bank()
    begun = asyncio.Event()

    async def read() -> dict[str, torch.Tensor]:
        begun.set()
        await asyncio.sleep(0.01)
        return {"weight": torch.ones(4, 3)}

    loading = asyncio.create_task(made.pin(key("one"), read))
    await begun.wait()
    made.purge("acme", "one")
    with pytest.raises(EngineRefusal, match="withdrawn"):
        await loading
    assert not any(table.any() for table in made.tables.values())
    made.release(await put(made, "one"))


@pytest.mark.asyncio
async def test_a_failed_load_leaves_the_bank_usable() -> None:
    made = bank(slots=1)

    async def broken() -> dict[str, torch.Tensor]:
        raise EngineRefusal("bad_artifact", "no")

    with pytest.raises(EngineRefusal):
        await made.pin(key("one"), broken)
    assert await put(made, "one") == 1


@pytest.mark.asyncio
async def test_an_artefact_that_does_not_fit_leaves_nothing_behind() -> None:
    made = bank(slots=1)

    async def read() -> dict[str, torch.Tensor]:
        return {"bias": torch.ones(4), "weight": torch.ones(5, 3)}

    with pytest.raises(EngineRefusal, match="do not fit"):
        await made.pin(key("large"), read)
    assert not any(table.any() for table in made.tables.values())
    assert made.holders == {"weight": 0, "bias": 0}
    assert await put(made, "one") == 1


@pytest.mark.asyncio
async def test_a_retired_bank_empties_as_its_rows_leave() -> None:
    made = bank()
    idle, busy = await put(made, "a"), await put(made, "b", tenant="globex")
    made.release(idle)
    assert made.retire() == 2
    assert not made.tables["weight"][idle].any()
    assert made.tables["weight"][busy].any()
    made.release(busy)
    assert not any(table.any() for table in made.tables.values())
