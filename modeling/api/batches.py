"""/v1/batches in OpenAI's shape: a file of requests in, a file of answers out, within a day, at half the price."""

from __future__ import annotations

from django.urls import path
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.response import Response

from modeling.actions import batches, remembering
from modeling.api.batches_schema import BATCH, BATCHES
from modeling.api.jobs import ONCE, PAGE
from modeling.models import Batch
from modeling.serializers.batches import BatchRequest, batch_body
from saas.lib.errors import NotFound
from saas.lib.http import cursor_page
from tenants.access import ApiRequest, TenantAPIView
from tenants.models import Tenant
from tenants.scope import TenantQuerySet


def batches_of(tenant: Tenant) -> TenantQuerySet[Batch]:
    """The tenant's batches with what their bodies print."""
    return Batch.objects.of(tenant).select_related("file", "output_file", "error_file")


def find_batch(tenant: Tenant, public_id: str) -> Batch:
    """The tenant's batch by public id; raises NotFound."""
    found = batches_of(tenant).filter(public_id=public_id).first()
    if found is None:
        raise NotFound("There is no such batch.", param="batch_id")
    return found


class BatchesView(TenantAPIView):
    """The tenant's batches."""

    scope_name = "predict"

    @extend_schema(
        operation_id="createBatch",
        request=BatchRequest,
        responses={200: OpenApiResponse(BATCH)},
        parameters=[ONCE],
        tags=["Batches"],
    )
    def post(self, request: ApiRequest) -> Response:
        """Answer the requests of a file within 24 hours; each counts half.

        `input_file_id` is a file of purpose `batch`: JSON lines of `custom_id`, `method` POST, `url` (the same as
        `endpoint`) and `body`; at most 50,000 lines and 200 MiB. Every line is answered in the output file or named in
        the error file, in the order of the input.
        """
        wanted = BatchRequest(data=request.data)
        wanted.is_valid(raise_exception=True)
        tenant, actor, asked = request.auth.tenant, request.auth.actor, wanted.validated_data

        def effect() -> remembering.Answer:
            batch = batches.start(
                tenant,
                actor,
                file_id=asked["input_file_id"],
                endpoint=asked["endpoint"],
                metadata=asked.get("metadata") or {},
            )
            return 200, batch_body(batch)

        key = request.headers.get("Idempotency-Key", "")
        status, body = remembering.once(tenant, key, "batches", request.data, effect)
        return Response(body, status=status)

    @extend_schema(
        operation_id="listBatches",
        responses={200: OpenApiResponse(BATCHES)},
        parameters=PAGE,
        tags=["Batches"],
    )
    def get(self, request: ApiRequest) -> Response:
        """Batches, newest first."""
        page = cursor_page(batches_of(request.auth.tenant), request.query_params)
        return Response(page.body(batch_body))


class BatchView(TenantAPIView):
    """One batch."""

    scope_name = "predict"

    @extend_schema(operation_id="getBatch", responses={200: OpenApiResponse(BATCH)}, tags=["Batches"])
    def get(self, request: ApiRequest, batch_id: str) -> Response:
        """The batch as it stands; its files are read at /v1/files/{id}/content."""
        return Response(batch_body(find_batch(request.auth.tenant, batch_id)))


class CancelBatchView(TenantAPIView):
    """Cancel one batch."""

    scope_name = "predict"

    @extend_schema(
        operation_id="cancelBatch", request=None, responses={200: OpenApiResponse(BATCH)}, tags=["Batches"]
    )
    def post(self, request: ApiRequest, batch_id: str) -> Response:
        """Stop after the lines under way. What was answered is kept and billed; the rest is named in the error file."""
        tenant = request.auth.tenant
        batches.cancel(tenant, request.auth.actor, find_batch(tenant, batch_id))
        return Response(batch_body(find_batch(tenant, batch_id)))


urlpatterns = [
    path("batches", BatchesView.as_view(), name="batches"),
    path("batches/<str:batch_id>", BatchView.as_view(), name="batch"),
    path("batches/<str:batch_id>/cancel", CancelBatchView.as_view(), name="batch-cancel"),
]
