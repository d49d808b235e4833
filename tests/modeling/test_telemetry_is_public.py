"""What a run tells while it runs: public numbers only, never how many rows or people fit the recipe."""

from __future__ import annotations

from typing import Any

from modeling.models import Job, JobEvent
from modeling.queries.job_pages import charts_of
from saas.lib.markup import epsilon as printed
from tenants.models import Tenant
from tenants.scope import scope
from tests.modeling.clinic import row_of, started, train


def events(tenant: Tenant, job: Job, kind: str) -> list[JobEvent]:
    with scope(tenant):
        return list(JobEvent.objects.of(tenant).filter(job=job, kind=kind).order_by("seq"))


def test_how_many_rows_have_the_named_labels_is_not_told(api: Any, acme: Tenant, words_file: str) -> None:
    done = train(acme, started(api, words_file, labels=["class 0", "class 1"])["id"])
    assert done.state == Job.State.SUCCEEDED, done.error
    shape = done.plan["shape"]
    assert {event.data["total"] for event in events(acme, done, "phase")} == {shape["rows"]}
    for event in events(acme, done, "metrics"):
        told = event.data["examples_per_second"] * event.data["seconds"] / event.data["step"]
        assert round(told) == shape["train_units"]


def test_the_reading_under_the_chart_rounds_epsilon_up(api: Any, acme: Tenant, words_file: str) -> None:
    job = row_of(acme, started(api, words_file, privacy={"epsilon": 3})["id"])
    with scope(acme):
        for seq, spent in enumerate((1.0, 2.9313), start=10):
            JobEvent.objects.of(acme).create(
                job=job, seq=seq, kind="metrics", message="", data={"step": seq, "epsilon": spent}
            )
        job.last_seq = 11
        reading = charts_of(acme, job).epsilon_reading
    assert reading.startswith(f"{printed(2.9313)} of")
    assert printed(2.9313) == "2.94"


def test_without_privacy_nothing_is_called_noised(api: Any, acme: Tenant, words_file: str) -> None:
    done = train(acme, started(api, words_file, privacy={"mode": "off", "reason": "a control"})["id"])
    told = events(acme, done, "held_out")
    assert told
    assert not [event for event in told if "noised and charged" in event.message]
