"""/v1/fine_tuning: start, list, read and cancel jobs, their events and checkpoints, and quotes."""

from __future__ import annotations

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.response import Response

from modeling.actions import jobs, quoting, remembering
from modeling.models import Job, JobEvent
from modeling.serializers.jobs import JobRequest, event_body, job_body
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
    return Job.objects.of(tenant).select_related("file", "model_version", "tenant")


def find_job(tenant: Tenant, public_id: str) -> Job:
    """The tenant's job by public id; raises NotFound."""
    found = jobs_of(tenant).filter(public_id=public_id).first()
    if found is None:
        raise NotFound("There is no such fine-tuning job.")
    return found


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
        return Response(cursor_page(jobs_of(request.auth.tenant), request.query_params).body(job_body))


class JobView(TenantAPIView):
    """One job."""

    scope_name = "train"

    @extend_schema(operation_id="getJob", responses=OBJECT, tags=["Jobs"])
    def get(self, request: ApiRequest, job_id: str) -> Response:
        """The job as it stands."""
        return Response(job_body(find_job(request.auth.tenant, job_id)))


class CancelView(TenantAPIView):
    """Cancel one job."""

    scope_name = "train"

    @extend_schema(operation_id="cancelJob", request=None, responses=OBJECT, tags=["Jobs"])
    def post(self, request: ApiRequest, job_id: str) -> Response:
        """Ask for the stop; a waiting job is cancelled at once, a running one after its current block."""
        tenant = request.auth.tenant
        jobs.cancel(tenant, request.auth.actor, find_job(tenant, job_id))
        return Response(job_body(find_job(tenant, job_id)))


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
            events = events.filter(seq__lt=_seq_of(params["after"]))
        found = list(events[: size + 1])
        data = [event_body(job, event) for event in found[:size]]
        return Response(_list_body(data, has_more=len(found) > size))


def _seq_of(event_id: str) -> int:
    tail = event_id.rpartition("-")[2]
    if not event_id.startswith("ftevent-") or not tail.isdecimal() or len(tail) > 9:
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
    """Checkpoints that can be used as models: none, since a checkpoint here lives no longer than its job."""

    scope_name = "train"

    @extend_schema(operation_id="listJobCheckpoints", responses=OBJECT, parameters=PAGE, tags=["Jobs"])
    def get(self, request: ApiRequest, job_id: str) -> Response:
        """An empty list, for clients that ask."""
        find_job(request.auth.tenant, job_id)
        page_size(request.query_params)
        return Response(_list_body([], has_more=False))


class QuoteView(TenantAPIView):
    """What a job would cost."""

    scope_name = "train"

    @extend_schema(operation_id="createQuote", request=JobRequest, responses=OBJECT, tags=["Jobs"])
    def post(self, request: ApiRequest) -> Response:
        """Price, seconds and epsilon after; spends nothing."""
        wanted = JobRequest(data=request.data)
        wanted.is_valid(raise_exception=True)
        return Response(quoting.quote(request.auth.tenant, wanted.spec()))
