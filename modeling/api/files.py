"""/v1/files in OpenAI's shape, and /v1/datasets: what inspection made of them."""

from __future__ import annotations

from typing import Any, cast

from django.db.models import QuerySet
from django.http import QueryDict, StreamingHttpResponse
from django.urls import path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.parsers import MultiPartParser
from rest_framework.request import Request
from rest_framework.response import Response

from modeling.actions import declarations, files
from modeling.actions.datasets import rebuild_content
from modeling.api import dataset_schema
from modeling.api.files_schema import DATASET, DATASET_DELETED, DATASETS, DELETED, FILE, FILES, UPLOAD
from modeling.models import Dataset, DatasetVersion, File
from modeling.serializers.dataset_schema import SchemaRequest, schema_body
from modeling.serializers.uploads import keep_seconds
from modeling.uploads import VaultUpload, VaultUploadHandler
from saas.lib.errors import Conflict, NotFound, Refusal
from saas.lib.http import cursor_page
from saas.lib.streamed import attachment
from tenants.access import Caller, TenantAPIView
from tenants.models import Tenant
from tenants.scope import scope

ERRORS_SHOWN = 100
PAGING = [
    OpenApiParameter("after", OpenApiTypes.STR),
    OpenApiParameter("limit", OpenApiTypes.INT),
]


def caller(request: Request) -> Caller:
    """Who calls: TenantAPIView let nobody else in."""
    return cast(Caller, request.auth)


def file_body(file: File) -> dict[str, Any]:
    """OpenAI's file object."""
    return {
        "id": file.public_id,
        "object": "file",
        "bytes": file.size_bytes,
        "created_at": int(file.created_at.timestamp()),
        "expires_at": None if file.expires_at is None else int(file.expires_at.timestamp()),
        "filename": file.name,
        "purpose": file.purpose,
        "status": file.status,
        "status_details": file.status_details or None,
    }


def inspected_body(tenant: Tenant, file: File) -> dict[str, Any]:
    """The file object with what inspection found: our own fields beside OpenAI's."""
    version = newest_version(tenant, file)
    found = {
        "format": file.format or None,
        "reading": declarations.reading_said(file),
        "read_as": {},
        "errors": file.errors[:ERRORS_SHOWN],
        "error_count": sum(file.errors_by_rule.values()) or len(file.errors),
        "dataset": None,
        "rows": None,
        "units": None,
        "personal_data": None,
    }
    if version is not None:
        found |= {
            "read_as": read_as(version),
            "errors": version.errors[:ERRORS_SHOWN],
            "error_count": version.error_count,
            "dataset": (version.dataset.merged_into or version.dataset).public_id,
            "rows": version.rows,
            "units": version.units,
            "personal_data": version.personal_data or None,
        }
    return file_body(file) | found


def read_as(version: DatasetVersion) -> dict[str, Any]:
    """How a version's file was read, and why: `found` says declared, mark, likely (a guess) and the like."""
    layout = version.schema.get("layout", {})
    return {name: layout.get(name) for name in ("format", "encoding", "delimiter", "quote", "found")}


def newest_version(tenant: Tenant, file: File) -> DatasetVersion | None:
    """The newest version that inspection, another reading or another cut, made of a file alone."""
    own = (DatasetVersion.Mode.FILE, DatasetVersion.Mode.CUT, DatasetVersion.Mode.READ)
    rows = DatasetVersion.objects.of(tenant).filter(file=file, mode__in=own)
    return rows.select_related("dataset__merged_into").order_by("-number").first()


def live_files(tenant: Tenant) -> QuerySet[File]:
    """The tenant's files that were not deleted."""
    return File.objects.of(tenant).filter(deleted_at=None)


def get_file(tenant: Tenant, public_id: str) -> File:
    """A file by its public id; raises NotFound."""
    found = live_files(tenant).select_related("object").filter(public_id=public_id).first()
    if found is None:
        raise NotFound("There is no such file.", param="file_id")
    return found


class FilesView(TenantAPIView):
    """Upload and list."""

    scope_name = "files"
    scoped = False  # an upload streams for minutes: no transaction stays open meanwhile
    parser_classes = (MultiPartParser,)

    @extend_schema(
        operation_id="files_list",
        parameters=[*PAGING, OpenApiParameter("purpose", OpenApiTypes.STR)],
        responses={200: OpenApiResponse(FILES)},
    )
    def get(self, request: Request) -> Response:
        """A page of files, newest first."""
        if request.query_params.get("order", "desc") != "desc":
            raise Refusal("Files are listed newest first: order is desc.", param="order")
        tenant = caller(request).tenant
        with scope(tenant):
            rows = live_files(tenant)
            if purpose := request.query_params.get("purpose"):
                rows = rows.filter(purpose=purpose)
            return Response(cursor_page(rows, request.query_params).body(file_body))

    @extend_schema(operation_id="files_create", request=UPLOAD, responses={200: OpenApiResponse(FILE)})
    def post(self, request: Request) -> Response:
        """Take a file: multipart with `file` and `purpose`; it is inspected in the background."""
        tenant = caller(request).tenant
        uploading = VaultUploadHandler(tenant, request._request)
        request._request.upload_handlers = [uploading]
        try:
            upload = request.FILES.get("file")
            if not isinstance(upload, VaultUpload):
                raise Refusal("Send a file in the form field `file`.", param="file", code="missing_file")
            form = cast(QueryDict, request.data)
            keep = keep_seconds(form)
            with scope(tenant):
                file = files.add_file(
                    tenant,
                    caller(request).actor,
                    name=upload.name or "file",
                    purpose=str(form.get("purpose", "")),
                    writer=upload.writer,
                    reading={name: str(form.get(name, "")) for name in declarations.FIELDS},
                    keep_seconds=keep,
                    personal_data=str(form.get("personal_data", "")),
                )
                return Response(file_body(file))
        finally:
            uploading.abort()


class FileView(TenantAPIView):
    """Look at one file, delete it."""

    scope_name = "files"

    @extend_schema(operation_id="files_retrieve", responses={200: OpenApiResponse(FILE)})
    def get(self, request: Request, file_id: str) -> Response:
        """The file object with what inspection found."""
        tenant = caller(request).tenant
        return Response(inspected_body(tenant, get_file(tenant, file_id)))

    @extend_schema(operation_id="files_delete", responses={200: OpenApiResponse(DELETED)})
    def delete(self, request: Request, file_id: str) -> Response:
        """Delete the file; its rows are shredded."""
        file = get_file(caller(request).tenant, file_id)
        files.delete_file(file, caller(request).actor)
        return Response({"id": file.public_id, "object": "file", "deleted": True})


class FileContentView(TenantAPIView):
    """The file's bytes."""

    scope_name = "files"
    scoped = False  # the content streams after the handler returned

    @extend_schema(
        operation_id="files_content", responses={(200, "application/octet-stream"): OpenApiTypes.BINARY}
    )
    def get(self, request: Request, file_id: str) -> StreamingHttpResponse:
        """The content, written again from the rows (those refused or erased are absent); of a batch, as it is.

        What was packed comes unpacked, and the rows of a Parquet file come as JSON lines: the file name says so.
        """
        tenant = caller(request).tenant
        with scope(tenant):
            file = get_file(tenant, file_id)
            version = newest_version(tenant, file)
            if file.status == File.Status.ERROR:
                raise Refusal("This file could not be read, and was not kept.", status=410, code="gone")
            is_kept = file.purpose in File.KEPT_AS_IS
            if version is None and not is_kept:
                raise Conflict(
                    "This file is still being inspected. Try again in a moment.", code="not_processed"
                )
            if version is not None and (home := version.dataset.merged_into) is not None:
                raise Refusal(
                    f"This file's rows are part of the dataset {home.public_id} now.", status=410, code="gone"
                )
            stored = file.object
        if is_kept and stored is not None:
            chunks = files.kept_content(stored)
        else:
            chunks = rebuild_content(cast(DatasetVersion, version))
        return attachment(
            request._request,
            chunks,
            filename=files.content_name(file, version),
            content_type="application/octet-stream",
        )


def dataset_body(tenant: Tenant, dataset: Dataset) -> dict[str, Any]:
    """A dataset with its versions, newest first."""
    versions = (
        DatasetVersion.objects.of(tenant).filter(dataset=dataset).select_related("file").order_by("-number")
    )
    return {
        "id": dataset.public_id,
        "object": "dataset",
        "name": dataset.name,
        "created_at": int(dataset.created_at.timestamp()),
        "pack": dataset.pack,
        "task": dataset.task or None,
        **schema_body(dataset, versions.first()),
        "unit": dataset.unit_column,
        "unit_fixed": dataset.unit_fixed,
        "is_catalogue": dataset.is_catalogue,
        "versions": [
            {
                "number": version.number,
                "file": version.file.public_id if version.file else None,
                "created_at": int(version.created_at.timestamp()),
                "mode": version.mode,
                "content_hash": version.content_hash,
                "rows": version.rows,
                "units": version.units,
                "unit": version.unit_column,
                "error_count": version.error_count,
                "errors_by_rule": version.errors_by_rule,
            }
            for version in versions
        ],
    }


class DatasetsView(TenantAPIView):
    """List."""

    scope_name = "files"

    @extend_schema(
        operation_id="datasets_list", parameters=PAGING, responses={200: OpenApiResponse(DATASETS)}
    )
    def get(self, request: Request) -> Response:
        """A page of datasets, newest first."""
        tenant = caller(request).tenant
        rows = Dataset.objects.of(tenant).filter(deleted_at=None)
        return Response(cursor_page(rows, request.query_params).body(lambda one: dataset_body(tenant, one)))


class DatasetView(TenantAPIView):
    """One dataset."""

    scope_name = "files"

    @extend_schema(operation_id="datasets_retrieve", responses={200: OpenApiResponse(DATASET)})
    def get(self, request: Request, dataset_id: str) -> Response:
        """The dataset, its columns, unit and versions."""
        tenant = caller(request).tenant
        found = Dataset.objects.of(tenant).filter(public_id=dataset_id, deleted_at=None).first()
        if found is None:
            raise NotFound("There is no such dataset.", param="dataset_id")
        return Response(dataset_body(tenant, found))

    @extend_schema(operation_id="datasets_delete", responses={200: OpenApiResponse(DATASET_DELETED)})
    def delete(self, request: Request, dataset_id: str) -> Response:
        """Delete the dataset with all its versions, and the files whose rows are in it; the rows are shredded."""
        tenant = caller(request).tenant
        found = dataset_schema.found_dataset(tenant, dataset_id)
        files.delete_dataset(tenant, caller(request).actor, found)
        return Response({"id": found.public_id, "object": "dataset", "deleted": True})

    @extend_schema(
        operation_id="datasets_declare", request=SchemaRequest, responses={200: OpenApiResponse(DATASET)}
    )
    def post(self, request: Request, dataset_id: str) -> Response:
        """Say what is what: roles, unit of privacy, sensitive attributes, public bounds and categories."""
        tenant = caller(request).tenant
        dataset = dataset_schema.found_dataset(tenant, dataset_id)
        declared = dataset_schema.declare(tenant, caller(request).actor, dataset, request.data)
        return Response(dataset_body(tenant, declared))


urlpatterns = [
    path("files", FilesView.as_view(), name="files"),
    path("files/<str:file_id>", FileView.as_view(), name="file"),
    path("files/<str:file_id>/content", FileContentView.as_view(), name="file_content"),
    path("datasets", DatasetsView.as_view(), name="datasets"),
    path("datasets/<str:dataset_id>", DatasetView.as_view(), name="dataset"),
    *dataset_schema.urlpatterns,
]
