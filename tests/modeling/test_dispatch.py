"""The dispatcher: free workers get the oldest job of the tenant with the least running share, under its plan's cap."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import ProgrammingError
from django.db.models.functions import Now

from modeling.actions import running
from modeling.actions.dispatch import dispatch
from modeling.models import Job, Worker
from modeling.tasks.jobs import prepare_job
from tenants.models import Tenant
from tenants.scope import scope
from tests.modeling.clinic import row_of, started, uploaded, words_csv
from tests.modeling.test_jobs_start import pay_for


@pytest.fixture(autouse=True)
def only_these_jobs() -> Any:
    """Earlier tests leave queued jobs behind; here they are out of the way."""
    from tests.modeling.clinic import as_owner

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
    from tests.modeling.clinic import as_owner

    workers(1)
    first = names(dispatch())
    assert dispatch() == []
    as_owner(
        acme,
        "UPDATE modeling_job SET offered_at = offered_at - interval '1 minute' WHERE offered_at IS NOT NULL",
    )
    assert names(dispatch()) == first


def test_a_duplicate_hint_changes_nothing(acme: Tenant, queues: tuple[list[str], list[str]]) -> None:
    job = row_of(acme, queues[0][0])
    prepare_job(tenant_id=str(acme.pk), job_id=str(job.pk))
    assert row_of(acme, queues[0][0]).last_seq == job.last_seq


def test_the_operator_cannot_read_what_a_tenant_wrote(queues: tuple[list[str], list[str]]) -> None:
    assert list(Job.objects.everywhere().only(*Job.OPERATOR_COLUMNS)[:1])  # the control
    for column in ("spec", "recipe", "plan", "suffix", "error"):
        with pytest.raises(ProgrammingError, match="permission denied"):
            list(Job.objects.everywhere().values_list(column))
