"""/v1/uploads in OpenAI's shape: a large file in parts, put together and checked at the end."""

from __future__ import annotations

from django.urls import path
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework.parsers import MultiPartParser
from rest_framework.response import Response

from modeling.actions import uploading
from modeling.api.batches_schema import PART, PART_FORM, UPLOAD
from modeling.api.files import file_body
from modeling.serializers.batches import CompleteRequest, UploadRequest, part_body, upload_body
from modeling.uploads import VaultUpload, VaultUploadHandler
from saas.lib.errors import Refusal
from tenants.access import ApiRequest, TenantAPIView
from tenants.scope import scope

ANSWER = {200: OpenApiResponse(UPLOAD)}


class UploadsView(TenantAPIView):
    """Begin an upload."""

    scope_name = "files"

    @extend_schema(operation_id="createUpload", request=UploadRequest, responses=ANSWER, tags=["Uploads"])
    def post(self, request: ApiRequest) -> Response:
        """Announce a file: name, purpose and size. The parts must follow, and be completed, within an hour."""
        wanted = UploadRequest(data=request.data)
        wanted.is_valid(raise_exception=True)
        asked = wanted.validated_data
        upload = uploading.begin(
            request.auth.tenant,
            request.auth.actor,
            name=asked["filename"],
            purpose=asked["purpose"],
            size_bytes=asked["bytes"],
            mime_type=asked["mime_type"],
        )
        return Response(upload_body(upload))


class PartsView(TenantAPIView):
    """Add a part."""

    scope_name = "files"
    scoped = False  # a part streams: no transaction stays open meanwhile
    parser_classes = (MultiPartParser,)

    @extend_schema(
        operation_id="addUploadPart",
        request=PART_FORM,
        responses={200: OpenApiResponse(PART)},
        tags=["Uploads"],
    )
    def post(self, request: ApiRequest, upload_id: str) -> Response:
        """A part of at most 64 MiB in the form field `data`; parts may come in any order and at the same time."""
        tenant = request.auth.tenant
        with scope(tenant):
            upload = uploading.find_upload(tenant, upload_id)
            uploading.require_pending(upload)
        handler = VaultUploadHandler(
            tenant, request._request, kind="part", most_bytes=uploading.PART_BYTES_MOST
        )
        request._request.upload_handlers = [handler]
        try:
            data = request.FILES.get("data")
            if not isinstance(data, VaultUpload):
                raise Refusal("Send the part in the form field `data`.", param="data", code="missing_data")
            with scope(tenant):
                return Response(part_body(upload, uploading.add_part(tenant, upload, data.writer)))
        finally:
            handler.abort()


class CompleteView(TenantAPIView):
    """Make the file."""

    scope_name = "files"
    scoped = False  # the parts stream into one object

    @extend_schema(operation_id="completeUpload", request=CompleteRequest, responses=ANSWER, tags=["Uploads"])
    def post(self, request: ApiRequest, upload_id: str) -> Response:
        """Put the parts together in the order of `part_ids`; their sum, and `md5` if given, must be as announced."""
        wanted = CompleteRequest(data=request.data)
        wanted.is_valid(raise_exception=True)
        asked, tenant = wanted.validated_data, request.auth.tenant
        with scope(tenant):
            upload = uploading.find_upload(tenant, upload_id)
        file = uploading.complete(
            tenant,
            request.auth.actor,
            upload,
            asked["part_ids"],
            md5=asked.get("md5") or "",
            encoding=asked.get("encoding", ""),
        )
        with scope(tenant):
            return Response(upload_body(uploading.find_upload(tenant, upload_id), file_body(file)))


class CancelUploadView(TenantAPIView):
    """Give an upload up."""

    scope_name = "files"

    @extend_schema(operation_id="cancelUpload", request=None, responses=ANSWER, tags=["Uploads"])
    def post(self, request: ApiRequest, upload_id: str) -> Response:
        """The parts are destroyed."""
        tenant = request.auth.tenant
        uploading.cancel(tenant, request.auth.actor, uploading.find_upload(tenant, upload_id))
        return Response(upload_body(uploading.find_upload(tenant, upload_id)))


urlpatterns = [
    path("uploads", UploadsView.as_view(), name="uploads"),
    path("uploads/<str:upload_id>/parts", PartsView.as_view(), name="upload-parts"),
    path("uploads/<str:upload_id>/complete", CompleteView.as_view(), name="upload-complete"),
    path("uploads/<str:upload_id>/cancel", CancelUploadView.as_view(), name="upload-cancel"),
]
