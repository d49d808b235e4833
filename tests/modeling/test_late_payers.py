"""Suspended and read-only tenants: what still had to be stopped beside pages and keys."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from billing.models import Subscription
from billing.queries import running_caps
from modeling.actions import running, trying
from modeling.actions.files import add_file
from modeling.models import File, Job
from modeling.tasks.jobs import sweep
from saas.lib.errors import Refusal
from tenants import vault
from tenants.audit import SYSTEM
from tenants.models import Tenant
from tenants.scope import scope
from tests.modeling.clinic import row_of, started


def overdue(tenant: Tenant, days: float) -> None:
    """A Team plan whose payment failed that long ago."""
    since = timezone.now() - timedelta(days=days)
    values = {"plan": "team", "status": "past_due", "past_due_since": since}
    with scope(tenant):
        Subscription.objects.of(tenant).update_or_create(tenant=tenant, defaults=values)


def test_jobs_that_waited_do_not_start_while_the_tenant_is_read_only(
    acme: Tenant, api: Any, words_file: str
) -> None:
    job = row_of(acme, started(api, words_file)["id"])
    overdue(acme, 8)
    assert running_caps([acme.pk])[acme.pk] == 0
    assert running.claim(acme.pk, job.pk, worker="train@0") is None
    overdue(acme, 1)
    assert running_caps([acme.pk])[acme.pk] > 0
    assert running.claim(acme.pk, job.pk, worker="train@0") is not None


def test_the_playground_is_closed_while_the_tenant_is_suspended(acme: Tenant) -> None:
    overdue(acme, 8)
    assert trying.chat_target(acme, "smollm2-135m").base == "smollm2-135m"
    overdue(acme, 22)
    with pytest.raises(Refusal) as caught:
        trying.chat_target(acme, "smollm2-135m")
    assert (caught.value.status, caught.value.code) == (402, "suspended")


def test_an_upload_that_outlasts_the_suspension_is_not_kept(acme: Tenant) -> None:
    with vault.create(acme, "upload") as writer:
        writer.write(b"a,b\n1,2\n")
        with scope(acme):
            Tenant.objects.filter(pk=acme.pk).update(state=Tenant.State.SUSPENDED)
        with pytest.raises(Refusal) as caught, scope(acme):
            add_file(acme, SYSTEM, name="a.csv", purpose="fine-tune", writer=writer)
    assert caught.value.code == "suspended"
    with scope(acme):
        assert not File.objects.of(acme).exists()


def test_the_sweep_stops_what_a_lost_message_did_not(
    acme: Tenant, api: Any, words_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = row_of(acme, started(api, words_file)["id"])
    assert running.claim(acme.pk, job.pk, worker="train@0") is not None
    sent: list[tuple[str, dict[str, str]]] = []
    monkeypatch.setattr("saas.lib.background._send", lambda task, payload: sent.append((task, payload)))
    hint = ("modeling.stop_tenant_jobs", {"tenant_id": str(acme.pk)})
    sweep()
    assert hint not in sent
    with scope(acme):
        Tenant.objects.filter(pk=acme.pk).update(state=Tenant.State.SUSPENDED)
    sweep()
    assert hint in sent
    assert row_of(acme, job.public_id).state == Job.State.RUNNING
