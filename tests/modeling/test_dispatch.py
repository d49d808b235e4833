"""The dispatcher: free workers get the oldest job of the tenant with the least running share, under its plan's cap."""

from __future__ import annotations

from copy import copy
from datetime import timedelta
from typing import Any

import pytest
from django.db import ProgrammingError
from django.db.models.functions import Now
from django.utils import timezone

from modeling.actions import running
from modeling.actions.dispatch import Offer, dispatch
from modeling.models import Job, Worker
from modeling.models.jobs import job_id
from modeling.queries import queueing
from modeling.tasks.jobs import prepare_job
from saas.lib.db import uuid7
from tenants.actions import suspend_tenant
from tenants.audit import SYSTEM
from tenants.models import Tenant
from tenants.scope import scope
from tests.modeling.clinic import as_owner, row_of, started, uploaded, words_csv
from tests.modeling.test_jobs_start import pay_for


@pytest.fixture(autouse=True)
def only_these_jobs() -> Any:
    """Earlier tests leave queued jobs behind; here they are out of the way."""
    for tenant_id in (
        Job.objects.everywhere().filter(state__in=Job.OPEN).values_list("tenant_id", flat=True).distinct()
    ):
        as_owner(
            Tenant(pk=tenant_id),
            "UPDATE modeling_job SET state = 'cancelled', finished_at = now() WHERE finished_at IS NULL",
        )
    Worker.objects.all().delete()
    yield
    Worker.objects.all().delete()


def workers(number: int) -> None:
    for index in range(number):
        Worker.objects.create(name=f"train@{index}", kind="train", host="h", pid=index, heartbeat_at=Now())


@pytest.fixture
def queues(api: Any, globex_api: Any, acme: Tenant, globex: Tenant, tiny: Any) -> tuple[list[str], list[str]]:
    """Four jobs of acme, then one of globex; both on the Team plan (two at once)."""
    for tenant in (acme, globex):
        pay_for(tenant, "team")
    ours, theirs = uploaded(api, acme, words_csv(700)), uploaded(globex_api, globex, words_csv(700))
    acmes = [started(api, ours, privacy={"epsilon": 1})["id"] for _number in range(4)]
    return acmes, [started(globex_api, theirs, privacy={"epsilon": 1})["id"]]


def names(offers: Any) -> list[str]:
    found = []
    for offer in offers:
        with scope(offer.tenant_id):
            found.append(Job.objects.of(offer.tenant_id).get(pk=offer.job_id).public_id)
    return found


def test_a_late_tenants_first_job_starts_when_the_next_worker_frees(
    acme: Tenant, globex: Tenant, queues: tuple[list[str], list[str]]
) -> None:
    workers(1)
    assert names(dispatch()) == [queues[0][0]]
    assert dispatch() == []  # the only worker has an offer
    lease = running.claim(acme.pk, row_of(acme, queues[0][0]).pk, worker="train@0")
    assert lease is not None
    assert dispatch() == []
    workers_free(acme, lease)
    assert names(dispatch()) == [queues[1][0]]


def workers_free(tenant: Tenant, lease: running.Lease) -> None:
    with scope(tenant):
        running.update(lease, state=Job.State.CANCELLED, finished_at=Now(), lease_until=None)


def test_the_plan_caps_what_one_tenant_runs(acme: Tenant, queues: tuple[list[str], list[str]]) -> None:
    workers(6)
    assert sorted(names(dispatch())) == sorted([*queues[0][:2], queues[1][0]])


def test_the_cap_holds_at_the_claim_too(api: Any, acme: Tenant, words_file: str) -> None:
    first, second = (
        row_of(acme, started(api, words_file, privacy={"epsilon": 1})["id"]) for _number in range(2)
    )
    assert running.claim(acme.pk, first.pk, worker="a") is not None
    assert running.claim(acme.pk, second.pk, worker="b") is None  # Free runs one job at a time


def test_an_offer_nobody_took_is_made_again(acme: Tenant, queues: tuple[list[str], list[str]]) -> None:
    workers(1)
    first = names(dispatch())
    assert dispatch() == []
    as_owner(
        acme,
        "UPDATE modeling_job SET offered_at = offered_at - interval '1 minute' WHERE offered_at IS NOT NULL",
    )
    assert names(dispatch()) == first


def age(tenant: Tenant, public_id: str, minutes: int) -> None:
    as_owner(
        tenant,
        "UPDATE modeling_job SET created_at = created_at - %s * interval '1 minute' WHERE public_id = %s",
        minutes,
        public_id,
    )


def test_the_tenants_own_highest_priority_comes_first(
    api: Any, acme: Tenant, queues: tuple[list[str], list[str]]
) -> None:
    pay_for(acme, "business")
    workers(6)
    first, second, third, fourth = queues[0]
    assert (
        api.post(f"/v1/fine_tuning/jobs/{third}/priority", {"priority": "high"}).json()["priority"] == "high"
    )
    assert api.post(f"/v1/fine_tuning/jobs/{first}/priority", {"priority": "low"}).status_code == 200
    offered = [name for name in names(dispatch()) if name in queues[0]]
    assert offered == [third, second, fourth, first]


def test_a_high_priority_takes_nothing_from_another_tenant(
    api: Any, acme: Tenant, queues: tuple[list[str], list[str]]
) -> None:
    workers(2)
    for name in queues[0]:
        api.post(f"/v1/fine_tuning/jobs/{name}/priority", {"priority": "high"})
    assert sorted(names(dispatch())) == sorted([queues[0][0], queues[1][0]])


def test_a_low_job_that_waited_long_is_not_left_for_good(
    api: Any, acme: Tenant, queues: tuple[list[str], list[str]]
) -> None:
    workers(1)
    low, *others = queues[0]
    api.post(f"/v1/fine_tuning/jobs/{low}/priority", {"priority": "low"})
    for name in others:
        api.post(f"/v1/fine_tuning/jobs/{name}/priority", {"priority": "high"})
    order = [one for one in names(queue_order(acme)) if one in queues[0]]
    assert order == [*others, low]
    age(acme, low, 31)  # one step: with the normal ones
    assert [one for one in names(queue_order(acme)) if one in queues[0]] == [*others, low]
    api.post(f"/v1/fine_tuning/jobs/{others[2]}/priority", {"priority": "normal"})
    assert [one for one in names(queue_order(acme)) if one in queues[0]] == [*others[:2], low, others[2]]
    age(acme, low, 31)  # two steps: high, and the oldest of them
    assert [one for one in names(queue_order(acme)) if one in queues[0]] == [low, *others]


def queue_order(tenant: Tenant) -> list[Offer]:
    found = queueing.by_turn(queueing.free_jobs(max_attempts=3).filter(tenant_id=tenant.pk))
    return [Offer(tenant.pk, pk) for pk in found.values_list("pk", flat=True)]


def crowd(tenant: Tenant, public_id: str, number: int) -> None:
    """So many more queued jobs like this one."""
    with scope(tenant):
        like = Job.objects.of(tenant).get(public_id=public_id)
        copies = []
        for _index in range(number):
            like.pk, like.public_id = uuid7(), job_id()
            copies.append(copy(like))
        Job.objects.of(tenant).bulk_create(copies)


def test_a_thousand_jobs_of_one_tenant_hold_up_another_by_one_slot_at_most(
    acme: Tenant, globex: Tenant, globex_api: Any, queues: tuple[list[str], list[str]]
) -> None:
    """Property: whatever runs already, the next worker that frees goes to the tenant that has nothing running."""
    pay_for(acme, "business")
    crowd(acme, queues[0][0], 1_000)
    (theirs,) = queues[1]
    globex_api.post(f"/v1/fine_tuning/jobs/{theirs}/pause")
    for number in (1, 2, 3):
        Worker.objects.all().delete()
        workers(number)
        leases = []
        for offer in dispatch():
            lease = running.claim(offer.tenant_id, offer.job_id, worker="w")
            assert lease is not None
            leases.append(lease)
        assert {lease.tenant_id for lease in leases} <= {acme.pk}
        assert dispatch() == []
        globex_api.post(f"/v1/fine_tuning/jobs/{theirs}/resume")
        assert dispatch() == []  # no slot is free yet
        assert place(globex_api, theirs)["position"] == 1
        workers_free(acme, running_lease(acme))
        assert names(dispatch()) == [theirs]
        as_owner(globex, "UPDATE modeling_job SET offered_at = NULL")
        globex_api.post(f"/v1/fine_tuning/jobs/{theirs}/pause")


def running_lease(tenant: Tenant) -> running.Lease:
    with scope(tenant):
        job = Job.objects.of(tenant).filter(state=Job.State.RUNNING)[0]
    return running.Lease(tenant.pk, job.pk, job.epoch)


def place(api: Any, public_id: str) -> Any:
    return api.get(f"/v1/fine_tuning/jobs/{public_id}").json()["queue"]


def test_a_waiting_job_knows_its_place_and_its_start(
    api: Any,
    globex_api: Any,
    alice: Any,
    acme: Tenant,
    globex: Tenant,
    queues: tuple[list[str], list[str]],
) -> None:
    assert [place(api, name)["position"] for name in queues[0]] == [1, 3, 4, 5]
    assert place(globex_api, queues[1][0]) == {"position": 2, "estimated_start_at": None}  # no worker lives
    workers(1)
    assert row_of(acme, queues[0][0]).estimated_seconds > 0
    seconds = 100  # fixed here: quotes learn from whatever ran on this deployment before
    for tenant in (acme, globex):
        as_owner(tenant, "UPDATE modeling_job SET estimated_seconds = %s", seconds)
    now = timezone.now().timestamp()
    starts = [place(api, name)["estimated_start_at"] - now for name in queues[0]]
    assert starts == pytest.approx([0, 2 * seconds, 3 * seconds, 4 * seconds], abs=3)
    listed = {one["id"]: one["queue"]["position"] for one in api.get("/v1/fine_tuning/jobs").json()["data"]}
    assert [listed[name] for name in queues[0]] == [1, 3, 4, 5]

    lease = running.claim(acme.pk, row_of(acme, queues[0][0]).pk, worker="w")
    assert lease is not None
    assert place(api, queues[0][0]) is None
    assert place(globex_api, queues[1][0])["position"] == 1
    with scope(acme):
        running.update(lease, expected_end_at=Now() + timedelta(seconds=500))
    assert place(globex_api, queues[1][0])["estimated_start_at"] - now == pytest.approx(500, abs=5)
    page = alice.get(f"/t/{acme.slug}/training/{queues[0][3]}/").content.decode()
    assert "About 3 runs are likely before this one." in page
    assert "Expected to start" in page


def test_a_place_tells_nothing_of_another_tenant(
    api: Any, globex_api: Any, acme: Tenant, globex: Tenant, queues: tuple[list[str], list[str]]
) -> None:
    workers(1)
    text = globex_api.get("/v1/fine_tuning/jobs").content.decode()
    assert set(place(globex_api, queues[1][0])) == {"position", "estimated_start_at"}
    assert not [name for name in (*queues[0], acme.slug) if name in text]


def test_a_suspended_tenants_jobs_have_no_start(acme: Tenant, queues: tuple[list[str], list[str]]) -> None:
    workers(1)
    suspend_tenant(acme, reason="unpaid", actor=SYSTEM)
    found = queueing.estimates_for(acme, max_attempts=3)
    assert sorted(one.position for one in found.values()) == [2, 3, 4, 5]
    assert {one.starts_at for one in found.values()} == {None}


def test_a_duplicate_hint_changes_nothing(acme: Tenant, queues: tuple[list[str], list[str]]) -> None:
    job = row_of(acme, queues[0][0])
    prepare_job(tenant_id=str(acme.pk), job_id=str(job.pk))
    assert row_of(acme, queues[0][0]).last_seq == job.last_seq


def test_the_operator_cannot_read_what_a_tenant_wrote(queues: tuple[list[str], list[str]]) -> None:
    assert list(Job.objects.everywhere().only(*Job.OPERATOR_COLUMNS)[:1])  # the control
    for column in ("spec", "recipe", "plan", "suffix", "error"):
        with pytest.raises(ProgrammingError, match="permission denied"):
            list(Job.objects.everywhere().values_list(column))
