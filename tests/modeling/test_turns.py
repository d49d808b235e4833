"""The fair order as a pure rule, over many random queues: nobody over a cap, nobody left, and a newcomer is next."""

from __future__ import annotations

import random
import uuid
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modeling.queries.turns import NEVER, Share, Waiting, in_turn, places


def ids(number: int) -> list[uuid.UUID]:
    return [uuid.UUID(int=index + 1) for index in range(number)]


def queue(tenant: uuid.UUID, jobs: int, *, seconds: float = 10.0) -> list[Waiting]:
    return [Waiting(uuid.UUID(int=tenant.int * 10_000 + number), seconds) for number in range(jobs)]


def test_it_works() -> None:
    a, b = ids(2)
    queues = {a: queue(a, 3), b: queue(b, 1)}
    shares = [Share(a, cap=2, oldest=1.0), Share(b, cap=2, oldest=2.0)]
    found = places(queues, shares, ends=[], slots=1, wanted=[one.job_id for one in (*queues[a], *queues[b])])
    assert [found[one.job_id].position for one in queues[a]] == [1, 3, 4]
    assert [found[one.job_id].starts_in for one in queues[a]] == [0.0, 20.0, 30.0]
    assert (found[queues[b][0].job_id].position, found[queues[b][0].job_id].starts_in) == (2, 10.0)


@settings(max_examples=200, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    caps=st.lists(st.integers(1, 3), min_size=5, max_size=5),
    slots=st.integers(1, 4),
    seed=st.integers(0, 10_000),
)
def test_every_job_has_its_own_place_and_starts_in_order(
    sizes: list[int], caps: list[int], slots: int, seed: int
) -> None:
    dice = random.Random(seed)
    tenants = ids(len(sizes))
    queues = {
        one: [Waiting(job.job_id, dice.uniform(1, 50)) for job in queue(one, size)]
        for one, size in zip(tenants, sizes, strict=True)
    }
    shares = [Share(one, cap=cap, oldest=dice.random()) for one, cap in zip(tenants, caps, strict=False)]
    wanted = [job.job_id for jobs in queues.values() for job in jobs]
    found = places(queues, shares, ends=[], slots=slots, wanted=wanted)
    assert sorted(one.position for one in found.values()) == list(range(1, sum(sizes) + 1))
    starts = [one.starts_in for one in sorted(found.values(), key=lambda one: one.position)]
    assert starts == sorted(start for start in starts if start is not None)
    for jobs in queues.values():
        own = [found[job.job_id].position for job in jobs]
        assert own == sorted(own)
    for moment in set(starts):  # never more at once than slots and caps allow
        assert moment is not None
        at_once = [
            (tenant, job)
            for tenant, jobs in queues.items()
            for job in jobs
            if (found[job.job_id].starts_in or 0.0)
            <= moment
            < (found[job.job_id].starts_in or 0.0) + job.seconds
        ]
        assert len(at_once) <= slots
        for share in shares:
            assert len([tenant for tenant, _job in at_once if tenant == share.tenant_id]) <= share.cap


@settings(max_examples=200, deadline=None)
@given(
    running=st.lists(st.integers(0, 5), min_size=1, max_size=6),
    served=st.lists(st.floats(-1e5, 0), min_size=6, max_size=6),
)
def test_whoever_has_nothing_running_is_next(running: list[int], served: list[float]) -> None:
    *busy, newcomer = ids(len(running) + 1)
    shares = [
        Share(one, cap=100, running=1 + number, last_served=at)
        for one, number, at in zip(busy, running, served, strict=False)
    ]
    assert in_turn([*shares, Share(newcomer, cap=1)])[0].tenant_id == newcomer


@pytest.mark.parametrize("cap", [0, 1])
def test_a_tenant_at_its_cap_is_passed_over(cap: int) -> None:
    a, b = ids(2)
    assert [one.tenant_id for one in in_turn([Share(a, cap=cap, running=cap), Share(b, cap=1)])] == [b]


def test_without_a_worker_the_order_stands_and_no_time_is_given() -> None:
    (a,) = ids(1)
    found = places({a: queue(a, 2)}, [Share(a, cap=1, last_served=NEVER)], ends=[], slots=0, wanted=[])
    assert found == {}
    jobs = queue(a, 2)
    found = places({a: jobs}, [Share(a, cap=1)], ends=[], slots=0, wanted=[job.job_id for job in jobs])
    assert [(one.position, one.starts_in) for one in found.values()] == [(1, None), (2, None)]


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 100_000))
def test_each_start_is_the_rules_first(seed: int) -> None:
    """The line played forward picks, at every start, whom the rule itself puts first."""
    dice = random.Random(seed)
    tenants = ids(dice.randint(1, 6))
    queues = {one: queue(one, dice.randint(1, 5), seconds=1e9) for one in tenants}
    shares = {
        one: Share(
            one, dice.randint(0, 3), last_served=dice.choice([NEVER, -5, -1]), oldest=dice.choice([1, 2])
        )
        for one in tenants
    }
    wanted = {job.job_id: one for one, jobs in queues.items() for job in jobs}
    found = places(queues, list(shares.values()), ends=[], slots=100, wanted=list(wanted))
    left = {one: len(jobs) for one, jobs in queues.items()}
    for job_id, place in sorted(found.items(), key=lambda one: one[1].position):
        turn = in_turn(share for one, share in shares.items() if left[one])
        if not turn or place.starts_in != 0.0:
            assert not turn or place.starts_in is not None
            break
        tenant = wanted[job_id]
        assert turn[0].tenant_id == tenant
        left[tenant] -= 1
        shares[tenant] = replace(shares[tenant], running=shares[tenant].running + 1, last_served=0.0)


class Counted(Share):
    """A standing that counts how often its rank is worked out."""

    asked = 0

    @property
    def rank(self) -> tuple[float, float, float, str]:
        Counted.asked += 1
        return super().rank


def test_the_work_grows_with_the_line_and_not_with_its_square() -> None:
    tenants = ids(200)
    queues = {one: queue(one, 10) for one in tenants}
    shares = [Counted(one, cap=2) for one in tenants]
    last = queues[tenants[-1]][-1].job_id
    assert places(queues, shares, ends=[], slots=4, wanted=[last])[last].position > 1_900
    assert Counted.asked < 10 * 2_000
