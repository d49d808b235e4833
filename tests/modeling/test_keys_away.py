"""While a tenant's key cannot be had, files and jobs wait and lose nothing; afterwards they go on by themselves."""

from __future__ import annotations

from typing import Any

from modeling.actions import jobs, running
from modeling.actions.inspection import inspect_file
from modeling.models import File, Inspection, Job, JobEvent
from tenants.models import DataKey, Tenant
from tenants.scope import scope
from tests.modeling.clinic import words_csv


def away(tenant: Tenant, *, is_away: bool) -> None:
    """What the watch writes once the tenant's own key refuses, or opens again."""
    with scope(tenant):
        DataKey.objects.of(tenant).filter(generation__gt=0).update(is_refused=is_away)


def test_a_file_waits_for_its_key(api: Any, acme: Tenant) -> None:
    name = api.upload("rows.csv", words_csv(60)).json()["id"]
    with scope(acme):
        file = File.objects.of(acme).get(public_id=name)
    away(acme, is_away=True)
    for _try in range(5):
        inspect_file(acme.pk, file.pk)
    with scope(acme):
        waiting = Inspection.objects.of(acme).get(file=file)
    assert (waiting.attempts, waiting.lease_until, waiting.done_at) == (0, None, None)
    assert api.get(f"/v1/files/{name}").json()["status"] == "uploaded"
    refused = api.upload("more.csv", words_csv(5))
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "own_key_refused")
    away(acme, is_away=False)
    inspect_file(acme.pk, file.pk)
    assert api.get(f"/v1/files/{name}").json()["status"] == "processed"


def test_a_job_stops_with_the_reason_and_waits_in_the_queue(api: Any, acme: Tenant) -> None:
    name = api.upload("rows.csv", words_csv(5)).json()["id"]
    with scope(acme):
        file = File.objects.of(acme).get(public_id=name)
        job = Job.objects.of(acme).create(file=file, task="classification", base="minilm-l6", state="queued")
    assert running.claim(acme.pk, job.pk, worker="one") is not None
    away(acme, is_away=True)
    with scope(acme):
        assert jobs.stop_all(acme) == 1
        said = JobEvent.objects.of(acme).filter(job=job).latest("pk")
    assert "your own key is not available" in said.message
    assert running.claim(acme.pk, job.pk, worker="two") is None
    away(acme, is_away=False)
    assert running.claim(acme.pk, job.pk, worker="two") is not None
