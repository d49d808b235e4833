"""Jobs whose worker is gone: taken back at once where the death is known, and given up after the last attempt."""

from __future__ import annotations

import uuid

from django.db.models import F
from django.utils.translation import gettext as _

from modeling.actions import endings, pausing
from modeling.actions.causes import LOST, Cause
from modeling.actions.jobs import end_unowned
from modeling.models import Job, JobEvent
from saas.lib.background import enqueue
from tenants.models import Tenant

State = Job.State


def take_back(tenant: Tenant, job_id: uuid.UUID | str, *, message: str, cause: Cause) -> bool:
    """Free a job whose worker is known to be dead, without waiting for its lease; False when another has it now.

    `message` is the one that the dead worker answered, as in `job.worker`. The epoch rises and the attempt counts.
    """
    job = Job.objects.of(tenant).select_for_update().filter(pk=job_id, state=State.RUNNING).first()
    if job is None or not message or not job.worker.endswith(f"#{message}"):
        return False
    endings.announce_loss(job, cause)
    Job.objects.of(tenant).filter(pk=job.pk).update(
        state=State.QUEUED, epoch=F("epoch") + 1, lease_until=None, worker="", expected_end_at=None
    )
    if job.pause_requested:
        pausing.pause_unowned(tenant, job.pk)
    enqueue("modeling.dispatch")
    return True


def give_up(tenant: Tenant, job_id: uuid.UUID | str) -> None:
    """End a job whose every attempt was lost, naming what happened to each; what was charged stays charged."""
    job = Job.objects.of(tenant).filter(pk=job_id).first()
    if job is None:
        return
    causes = causes_of(tenant, job)
    told = "; ".join(
        _("(%(n)s) %(what)s") % {"n": number, "what": cause.words} for number, cause in enumerate(causes, 1)
    )
    message = _(
        "Training was started %(n)s times and was lost each time: %(told)s. Nothing was billed for this job."
    ) % {"n": job.attempts, "told": told}
    error = {
        "message": message,
        "code": "attempts_exhausted",
        "param": None,
        "attempts": [cause.code for cause in causes],
    }
    end_unowned(tenant, job, State.FAILED, error=error)


def causes_of(tenant: Tenant, job: Job) -> list[Cause]:
    """What happened to each counted attempt, the first first; one that left no word was lost with its worker."""
    said = JobEvent.objects.of(tenant).filter(job=job, data__has_key="cause").order_by("seq")
    causes = {
        data["attempt"]: Cause(data["cause"], data.get("error", ""))
        for data in said.values_list("data", flat=True)
    }
    return [causes.get(number, Cause(LOST)) for number in range(1, job.attempts + 1)]
