"""Tasks of jobs: train one, prepare one, dispatch, sweep, stop a tenant's. Messages are hints, rows are the truth."""

from __future__ import annotations

import os
import uuid
from typing import Any

from celery import Task, current_app, shared_task, signals
from celery.exceptions import WorkerLostError
from django.db.models import Q
from django.db.models.functions import Now

from modeling import workers
from modeling.actions import dispatch as dispatching
from modeling.actions import jobs, losing, pausing, running, training
from modeling.actions.causes import KILLED, LOST, Cause
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


@shared_task(name="modeling.train_job", bind=True, throws=(Refusal,))
def train_job(self: Task[Any, Any], *, tenant_id: str, job_id: str) -> None:
    """Claim the job and run one attempt; nothing happens when somebody else has it."""
    worker = _claimant(workers.name_of(KIND), self.request.id or "")
    lease = running.claim(uuid.UUID(tenant_id), uuid.UUID(job_id), worker=worker)
    if lease is None:
        return
    workers.note_job(KIND, lease.job_id)
    try:
        training.run(lease, is_stopping=draining.is_asked)
    finally:
        workers.note_job(KIND, None)


def _claimant(process: str, message: str) -> str:
    """The name under which a job is claimed: the process, and the message that it answers."""
    return f"{process}#{message[:8]}"


@signals.task_failure.connect
def _child_was_lost(
    sender: Any = None,
    task_id: str = "",
    exception: BaseException | None = None,
    kwargs: dict[str, str] | None = None,
    **_: Any,
) -> None:
    """In the worker's parent, when a training child is gone: say so at once, by message, and touch no database here."""
    if isinstance(exception, WorkerLostError) and sender is not None and sender.name == train_job.name:
        cause = KILLED if "signal 9" in str(exception) else LOST
        ids = {"tenant_id": (kwargs or {})["tenant_id"], "job_id": (kwargs or {})["job_id"]}
        current_app.send_task(
            "modeling.note_loss", kwargs={**ids, "message": task_id, "cause": cause}, retry=False
        )


@shared_task(name="modeling.note_loss")
def note_loss(*, tenant_id: str, job_id: str, message: str, cause: str) -> None:
    """Free the job whose child was lost while it answered this message, unless another has it by now."""
    with scope(tenant_id):
        tenant = Tenant.objects.get(pk=tenant_id)
        losing.take_back(tenant, job_id, message=message[:8], cause=Cause(cause))


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
            losing.give_up(Tenant.objects.get(pk=tenant_id), job_id)
    running_on = everything.filter(state=Job.State.RUNNING).exclude(tenant__state=Tenant.State.ACTIVE)
    for tenant_id in running_on.values_list("tenant_id", flat=True).distinct():
        enqueue("modeling.stop_tenant_jobs", tenant_id=tenant_id)
    ownerless = Q(state=Job.State.RUNNING, lease_until__lt=Now())
    for tenant_id, job_id in everything.filter(ownerless, cancel_requested=True).values_list(
        "tenant_id", "pk"
    ):
        with scope(tenant_id):
            tenant = Tenant.objects.get(pk=tenant_id)
            jobs.end_unowned(tenant, Job.objects.of(tenant).get(pk=job_id), Job.State.CANCELLED)
    to_pause = everything.filter(is_free, pause_requested=True).exclude(cancel_requested=True)
    for tenant_id, job_id in to_pause.values_list("tenant_id", "pk"):
        with scope(tenant_id):
            pausing.pause_unowned(Tenant.objects.get(pk=tenant_id), job_id)
    workers.forget_silent()
    enqueue("modeling.sweep_inspections")
    enqueue("modeling.sweep_quality")
    enqueue("modeling.sweep_versions")
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
