"""/v1/fine_tuning: start, list, read, pause, resume, order and cancel jobs, their events, checkpoints, and quotes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.response import Response

from modeling.actions import jobs, pausing, quoting, remembering
from modeling.actions.running import MAX_ATTEMPTS
from modeling.models import Job, JobEvent
from modeling.queries import checkpoints, queueing
from modeling.serializers.jobs import (
    JobRequest,
    PriorityRequest,
    checkpoint_body,
    event_body,
    job_body,
)
from saas.lib.errors import NotFound
from saas.lib.http import cursor_page, page_size
from tenants.access import ApiRequest, TenantAPIView
from tenants.models import Tenant
from tenants.scope import TenantQuerySet

PAGE = [
    OpenApiParameter("after", str, description="The id after which the page starts."),
    OpenApiParameter("limit", int, description="1 to 100, 20 when left out."),
]
ONCE = OpenApiParameter("Idempotency-Key", str, OpenApiParameter.HEADER)
OBJECT = {200: OpenApiTypes.OBJECT}


def jobs_of(tenant: Tenant) -> TenantQuerySet[Job]:
    """The tenant's jobs with what their bodies print."""
    return Job.objects.of(tenant).select_related(
        "file", "model_version", "tenant", "dataset_version__dataset"
    )


def find_job(tenant: Tenant, public_id: str) -> Job:
    """The tenant's job by public id; raises NotFound."""
    found = jobs_of(tenant).filter(public_id=public_id).first()
    if found is None:
        raise NotFound("There is no such fine-tuning job.")
    return found


def bodies_of(tenant: Tenant, found: Iterable[Job]) -> list[dict[str, Any]]:
    """Jobs as JSON; those in the queue with their place in it."""
    rows = list(found)
    is_waiting = any(job.state == Job.State.QUEUED for job in rows)
    places = queueing.estimates_for(tenant, max_attempts=MAX_ATTEMPTS) if is_waiting else {}
    return [job_body(job, places.get(job.pk)) for job in rows]


def answer_of(tenant: Tenant, job_id: str) -> Response:
    """One job as it stands now."""
    return Response(bodies_of(tenant, [find_job(tenant, job_id)])[0])


class JobsView(TenantAPIView):
    """The tenant's jobs."""

    scope_name = "train"

    @extend_schema(
        operation_id="createJob", request=JobRequest, responses=OBJECT, parameters=[ONCE], tags=["Jobs"]
    )
    def post(self, request: ApiRequest) -> Response:
        """Start a job; the same Idempotency-Key gives the same job."""
        wanted = JobRequest(data=request.data)
        wanted.is_valid(raise_exception=True)
        tenant, actor = request.auth.tenant, request.auth.actor

        def effect() -> remembering.Answer:
            job = jobs.start(tenant, actor, wanted.spec())
            return 200, job_body(find_job(tenant, job.public_id))

        key = request.headers.get("Idempotency-Key", "")
        status, body = remembering.once(tenant, key, "fine_tuning.jobs", request.data, effect)
        return Response(body, status=status)

    @extend_schema(operation_id="listJobs", responses=OBJECT, parameters=PAGE, tags=["Jobs"])
    def get(self, request: ApiRequest) -> Response:
        """Jobs, newest first."""
        tenant = request.auth.tenant
        page = cursor_page(jobs_of(tenant), request.query_params)
        bodies = {body["id"]: body for body in bodies_of(tenant, page.rows)}
        return Response(page.body(lambda job: bodies[job.public_id]))


class JobView(TenantAPIView):
    """One job."""

    scope_name = "train"

    @extend_schema(operation_id="getJob", responses=OBJECT, tags=["Jobs"])
    def get(self, request: ApiRequest, job_id: str) -> Response:
        """The job as it stands."""
        return answer_of(request.auth.tenant, job_id)


class CancelView(TenantAPIView):
    """Cancel one job."""

    scope_name = "train"

    @extend_schema(operation_id="cancelJob", request=None, responses=OBJECT, tags=["Jobs"])
    def post(self, request: ApiRequest, job_id: str) -> Response:
        """Ask for the stop; a waiting job is cancelled at once, a running one after its current block."""
        tenant = request.auth.tenant
        jobs.cancel(tenant, request.auth.actor, find_job(tenant, job_id))
        return answer_of(tenant, job_id)


class PauseView(TenantAPIView):
    """Pause one job."""

    scope_name = "train"

    @extend_schema(operation_id="pauseJob", request=None, responses=OBJECT, tags=["Jobs"])
    def post(self, request: ApiRequest, job_id: str) -> Response:
        """A queued job pauses at once, a running one after its current block; 409 in any other state."""
        tenant = request.auth.tenant
        pausing.pause(tenant, request.auth.actor, find_job(tenant, job_id))
        return answer_of(tenant, job_id)


class ResumeView(TenantAPIView):
    """Resume one job."""

    scope_name = "train"

    @extend_schema(operation_id="resumeJob", request=None, responses=OBJECT, tags=["Jobs"])
    def post(self, request: ApiRequest, job_id: str) -> Response:
        """Back into the queue, from its checkpoint and with the same privacy reservation; 409 unless it is paused."""
        tenant = request.auth.tenant
        pausing.resume(tenant, request.auth.actor, find_job(tenant, job_id))
        return answer_of(tenant, job_id)


class PriorityView(TenantAPIView):
    """Order one waiting job among the tenant's own."""

    scope_name = "train"

    @extend_schema(operation_id="setJobPriority", request=PriorityRequest, responses=OBJECT, tags=["Jobs"])
    def post(self, request: ApiRequest, job_id: str) -> Response:
        """High, normal or low; 409 once the job has a worker."""
        tenant = request.auth.tenant
        job = find_job(tenant, job_id)
        wanted = PriorityRequest(data=request.data)
        wanted.is_valid(raise_exception=True)
        jobs.prioritise(tenant, request.auth.actor, job, wanted.validated_data["priority"])
        return answer_of(tenant, job_id)


class EventsView(TenantAPIView):
    """The numbered events of a job."""

    scope_name = "train"

    @extend_schema(operation_id="listJobEvents", responses=OBJECT, parameters=PAGE, tags=["Jobs"])
    def get(self, request: ApiRequest, job_id: str) -> Response:
        """Newest first, as OpenAI lists them; `after` is an event id."""
        tenant, params = request.auth.tenant, request.query_params
        job, size = find_job(tenant, job_id), page_size(params)
        events = JobEvent.objects.of(tenant).filter(job=job).order_by("-seq")
        if params.get("after"):
            events = events.filter(seq__lt=_seq_of(params["after"], "ftevent"))
        found = list(events[: size + 1])
        data = [event_body(job, event) for event in found[:size]]
        return Response(_list_body(data, has_more=len(found) > size))


def _seq_of(public_id: str, prefix: str) -> int:
    tail = public_id.rpartition("-")[2]
    if not public_id.startswith(f"{prefix}-") or not tail.isdecimal() or len(tail) > 9:
        raise NotFound("The object named by `after` does not exist in this list.", param="after")
    return int(tail)


def _list_body(data: list[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": has_more,
    }


class CheckpointsView(TenantAPIView):
    """The steps at which a job stored its place."""

    scope_name = "train"

    @extend_schema(operation_id="listJobCheckpoints", responses=OBJECT, parameters=PAGE, tags=["Jobs"])
    def get(self, request: ApiRequest, job_id: str) -> Response:
        """Newest first, with epsilon spent by then and released numbers only; `after` is a checkpoint id."""
        tenant, params = request.auth.tenant, request.query_params
        job, size = find_job(tenant, job_id), page_size(params)
        before = _seq_of(params["after"], "ftckpt") if params.get("after") else None
        found = checkpoints.checkpoints_of(tenant, job, before=before, most=size + 1)
        data = [checkpoint_body(job, one) for one in found[:size]]
        return Response(_list_body(data, has_more=len(found) > size))


class QuoteView(TenantAPIView):
    """What a job would cost."""

    scope_name = "train"

    @extend_schema(operation_id="createQuote", request=JobRequest, responses=OBJECT, tags=["Jobs"])
    def post(self, request: ApiRequest) -> Response:
        """Price, seconds and epsilon after; spends nothing."""
        wanted = JobRequest(data=request.data)
        wanted.is_valid(raise_exception=True)
        return Response(quoting.quote(request.auth.tenant, wanted.spec()))
