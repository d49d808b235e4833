"""/v1/uploads in OpenAI's shape, resumable: a large file in parts, what has arrived, one file at the end."""

from __future__ import annotations

from django.urls import path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.parsers import MultiPartParser
from rest_framework.response import Response

from modeling.actions import files, upload_parts, uploading
from modeling.api.files import file_body
from modeling.api.uploads_schema import PART, PART_FORM, PROGRESS, UPLOAD, UPLOADS
from modeling.part_forms import HEADERS, sent_part
from modeling.serializers import uploads as wire
from modeling.uploads import VaultUploadHandler
from saas.lib.http import cursor_page
from tenants.access import ApiRequest, TenantAPIView
from tenants.scope import scope

ANSWER = {200: OpenApiResponse(UPLOAD)}
PAGING = [OpenApiParameter("after", OpenApiTypes.STR), OpenApiParameter("limit", OpenApiTypes.INT)]
DIGESTS = [OpenApiParameter(name, OpenApiTypes.STR, OpenApiParameter.HEADER) for name in HEADERS]


class UploadsView(TenantAPIView):
    """Begin an upload, list those under way."""

    scope_name = "files"

    @extend_schema(
        operation_id="listUploads",
        parameters=PAGING,
        responses={200: OpenApiResponse(UPLOADS)},
        tags=["Uploads"],
    )
    def get(self, request: ApiRequest) -> Response:
        """A page of the uploads that wait for parts, newest first."""
        rows = files.pending_uploads(request.auth.tenant)
        return Response(cursor_page(rows, request.query_params).body(wire.upload_body))

    @extend_schema(
        operation_id="createUpload", request=wire.UploadRequest, responses=ANSWER, tags=["Uploads"]
    )
    def post(self, request: ApiRequest) -> Response:
        """Announce a file: name, purpose and size. Each part keeps the upload open for another hour, up to a day."""
        wanted = wire.UploadRequest(data=request.data)
        wanted.is_valid(raise_exception=True)
        asked = wanted.validated_data
        upload = uploading.begin(
            request.auth.tenant,
            request.auth.actor,
            wire.announced(asked),
            mime_type=asked["mime_type"],
            part_bytes=asked.get("part_bytes"),
        )
        return Response(wire.upload_body(upload))


class UploadView(TenantAPIView):
    """Look at one upload."""

    scope_name = "files"

    @extend_schema(operation_id="getUpload", responses={200: OpenApiResponse(PROGRESS)}, tags=["Uploads"])
    def get(self, request: ApiRequest, upload_id: str) -> Response:
        """What has arrived: each part with its number, size and SHA-256, so that a sender can go on from there."""
        tenant = request.auth.tenant
        upload = uploading.find_upload(tenant, upload_id)
        file = file_body(upload.file) if upload.file is not None else None
        return Response(wire.progress_body(upload, upload_parts.known_parts(tenant, upload), file))


class PartsView(TenantAPIView):
    """Add a part."""

    scope_name = "files"
    scoped = False  # a part streams: no transaction stays open meanwhile
    parser_classes = (MultiPartParser,)

    @extend_schema(
        operation_id="addUploadPart",
        parameters=DIGESTS,
        request=PART_FORM,
        responses={200: OpenApiResponse(PART)},
        tags=["Uploads"],
    )
    def post(self, request: ApiRequest, upload_id: str) -> Response:
        """A part of at most 64 MiB in the form field `data`; parts may come in any order and at the same time.

        With `part_number` a part that is sent again replaces the former one. With a checksum (`sha256`, `md5`, or the
        header Content-Digest or Repr-Digest of the part's bytes) a part that was damaged on the way is refused.
        """
        tenant = request.auth.tenant
        with scope(tenant):
            upload = uploading.find_upload(tenant, upload_id)
            uploading.require_pending(upload)
        handler = VaultUploadHandler(
            tenant, request._request, kind="part", most_bytes=upload_parts.PART_BYTES_MOST
        )
        request._request.upload_handlers = [handler]
        try:
            sent = sent_part(request._request)
            with scope(tenant):
                return Response(wire.part_body(upload, upload_parts.add_part(tenant, upload, sent)))
        finally:
            handler.abort()


class CompleteView(TenantAPIView):
    """Make the file."""

    scope_name = "files"
    scoped = False  # with a checksum, the parts are read

    @extend_schema(
        operation_id="completeUpload", request=wire.CompleteRequest, responses=ANSWER, tags=["Uploads"]
    )
    def post(self, request: ApiRequest, upload_id: str) -> Response:
        """Put the parts together in the order of `part_ids`; their sum, and `md5` or `sha256` if given, must fit.

        A call whose answer was lost can be made again: the same parts give the same file.
        """
        wanted = wire.CompleteRequest(data=request.data)
        wanted.is_valid(raise_exception=True)
        asked, tenant = wanted.validated_data, request.auth.tenant
        with scope(tenant):
            upload = uploading.find_upload(tenant, upload_id)
        file = uploading.complete(tenant, request.auth.actor, upload, asked["part_ids"], wire.whole(asked))
        with scope(tenant):
            return Response(wire.upload_body(uploading.find_upload(tenant, upload_id), file_body(file)))


class CancelUploadView(TenantAPIView):
    """Give an upload up."""

    scope_name = "files"

    @extend_schema(operation_id="cancelUpload", request=None, responses=ANSWER, tags=["Uploads"])
    def post(self, request: ApiRequest, upload_id: str) -> Response:
        """The parts are destroyed."""
        tenant = request.auth.tenant
        uploading.cancel(tenant, request.auth.actor, uploading.find_upload(tenant, upload_id))
        return Response(wire.upload_body(uploading.find_upload(tenant, upload_id)))


urlpatterns = [
    path("uploads", UploadsView.as_view(), name="uploads"),
    path("uploads/<str:upload_id>", UploadView.as_view(), name="upload"),
    path("uploads/<str:upload_id>/parts", PartsView.as_view(), name="upload-parts"),
    path("uploads/<str:upload_id>/complete", CompleteView.as_view(), name="upload-complete"),
    path("uploads/<str:upload_id>/cancel", CancelUploadView.as_view(), name="upload-cancel"),
]
