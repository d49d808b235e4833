"""Tasks of jobs: train one, prepare one, dispatch, sweep, stop a tenant's. Messages are hints, rows are the truth."""

from __future__ import annotations

import os
import uuid
from typing import Any

from celery import Task, shared_task, signals
from django.db.models import Q
from django.db.models.functions import Now

from modeling import workers
from modeling.actions import dispatch as dispatching
from modeling.actions import jobs, running, training
from modeling.actions.running import MAX_ATTEMPTS
from modeling.models import Job
from saas.lib import draining
from saas.lib.background import enqueue
from saas.lib.errors import Refusal
from tenants.models import Tenant
from tenants.scope import scope

KIND = "train"
WAIT_SECONDS = 1.5
WAITS = 200  # about five minutes; then the sweep looks every 15 s


@shared_task(name="modeling.train_job", throws=(Refusal,))
def train_job(*, tenant_id: str, job_id: str) -> None:
    """Claim the job and run one attempt; nothing happens when somebody else has it."""
    lease = running.claim(uuid.UUID(tenant_id), uuid.UUID(job_id), worker=workers.name_of(KIND))
    if lease is None:
        return
    workers.note_job(KIND, lease.job_id)
    try:
        training.run(lease, is_stopping=draining.is_asked)
    finally:
        workers.note_job(KIND, None)


@shared_task(name="modeling.prepare_job", bind=True, throws=(Refusal,), max_retries=None)
def prepare_job(self: Task[Any, Any], *, tenant_id: str, job_id: str, swept: str = "") -> None:
    """Admit a job once its files are inspected; a job that cannot run fails with the sentence.

    The hint sent at the start looks again every moment; one sent by the sweep looks once.
    """
    try:
        with scope(tenant_id):
            is_done = jobs.prepare(Tenant.objects.get(pk=tenant_id), job_id)
    except Refusal as refusal:
        with scope(tenant_id):
            jobs.refuse(Tenant.objects.get(pk=tenant_id), job_id, refusal)
        return
    if not is_done and not swept and not self.request.called_directly and self.request.retries < WAITS:
        raise self.retry(countdown=WAIT_SECONDS)


@shared_task(name="modeling.dispatch")
def dispatch() -> None:
    """Offer waiting jobs to free workers."""
    dispatching.dispatch()


@shared_task(name="modeling.sweep")
def sweep() -> None:
    """Send again what may have been lost: waiting jobs, expired leases, files not inspected; end poison jobs."""
    everything = Job.objects.everywhere()
    for tenant_id, job_id in everything.filter(state=Job.State.VALIDATING).values_list("tenant_id", "pk"):
        enqueue("modeling.prepare_job", tenant_id=tenant_id, job_id=job_id, swept="yes")
    is_free = Q(state=Job.State.QUEUED) | Q(state=Job.State.RUNNING, lease_until__lt=Now())
    for tenant_id, job_id in everything.filter(is_free, attempts__gte=MAX_ATTEMPTS).values_list(
        "tenant_id", "pk"
    ):
        with scope(tenant_id):
            jobs.give_up(Tenant.objects.get(pk=tenant_id), job_id)
    running_on = everything.filter(state=Job.State.RUNNING, tenant__state=Tenant.State.SUSPENDED)
    for tenant_id in running_on.values_list("tenant_id", flat=True).distinct():
        enqueue("modeling.stop_tenant_jobs", tenant_id=tenant_id)
    ownerless = Q(state=Job.State.RUNNING, lease_until__lt=Now())
    for tenant_id, job_id in everything.filter(ownerless, cancel_requested=True).values_list(
        "tenant_id", "pk"
    ):
        with scope(tenant_id):
            tenant = Tenant.objects.get(pk=tenant_id)
            jobs.end_unowned(tenant, Job.objects.of(tenant).get(pk=job_id), Job.State.CANCELLED)
    workers.forget_silent()
    enqueue("modeling.sweep_inspections")
    dispatching.dispatch()


@shared_task(name="modeling.stop_tenant_jobs")
def stop_tenant_jobs(*, tenant_id: str) -> None:
    """Take a suspended tenant's running jobs from their workers."""
    with scope(tenant_id):
        jobs.stop_all(Tenant.objects.get(pk=tenant_id))


@shared_task(name="modeling.heartbeat")
def heartbeat() -> None:
    """Say once that this worker lives, for pools in which no thread does."""
    workers.beat("quick")


def _is_training(hostname: str) -> bool:
    return hostname.startswith("train@")


_hostname = ""


@signals.celeryd_init.connect
def _remember_name(sender: str | None = None, **_: Any) -> None:
    global _hostname
    _hostname = str(sender or os.environ.get("HOSTNAME", ""))


@signals.worker_process_init.connect
def _child_starts(**_: Any) -> None:
    workers.keep_beating("train" if _is_training(_hostname) else "quick")


@signals.worker_process_shutdown.connect
def _child_ends(**_: Any) -> None:
    workers.withdraw("train" if _is_training(_hostname) else "quick")
