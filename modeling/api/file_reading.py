"""/v1/files/{id}/read: have a file read in another way; /v1/files/{id}/errors: what was wrong with its rows."""

from __future__ import annotations

from django.http import StreamingHttpResponse
from django.urls import path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from modeling.actions import rereading
from modeling.api import files as file_api
from modeling.api.files_schema import ERRORS, FILE
from modeling.queries import file_errors
from saas.lib.errors import Refusal
from saas.lib.http import page_size
from saas.lib.streamed import attachment
from tenants.access import TenantAPIView


class ReadRequest(serializers.Serializer[dict[str, str]]):
    """How a file is to be read; what is absent or empty is guessed."""

    encoding = serializers.CharField(
        required=False,
        allow_blank=True,
        max_length=40,
        help_text="A text encoding by Python's name, such as cp1252.",
    )
    delimiter = serializers.CharField(
        required=False,
        allow_blank=True,
        max_length=16,
        trim_whitespace=False,
        help_text="One character, or its name: comma, semicolon, tab, bar, space.",
    )
    quote = serializers.CharField(
        required=False,
        allow_blank=True,
        max_length=16,
        help_text="One character, or none: cells are never quoted.",
    )
    format = serializers.ChoiceField(required=False, allow_blank=True, choices=["csv", "jsonl", "parquet"])


class FileReadView(TenantAPIView):
    """Read a file again."""

    scope_name = "files"

    @extend_schema(
        operation_id="files_read", request=ReadRequest, responses={200: OpenApiResponse(FILE)}, tags=["files"]
    )
    def post(self, request: Request, file_id: str) -> Response:
        """Inspect a file once more, read as this says: a refused one within a day, a processed one from its rows."""
        asked = ReadRequest(data=request.data)
        asked.is_valid(raise_exception=True)
        caller = file_api.caller(request)
        file = file_api.get_file(caller.tenant, file_id)
        rereading.read_again(caller.tenant, caller.actor, file, asked.validated_data)
        return Response(file_api.inspected_body(caller.tenant, file_api.get_file(caller.tenant, file_id)))


class FileErrorsView(TenantAPIView):
    """What was wrong."""

    scope_name = "files"

    @extend_schema(
        operation_id="files_errors",
        parameters=[
            OpenApiParameter("rule", OpenApiTypes.STR, description="Only the errors of this rule."),
            OpenApiParameter(
                "as", OpenApiTypes.STR, enum=["json", "csv"], description="csv: all listed, as a file."
            ),
            OpenApiParameter("after", OpenApiTypes.STR),
            OpenApiParameter("limit", OpenApiTypes.INT),
        ],
        responses={
            (200, "application/json"): OpenApiResponse(ERRORS),
            (200, "text/csv"): OpenApiTypes.STR,
        },
        tags=["files"],
    )
    def get(self, request: Request, file_id: str) -> Response | StreamingHttpResponse:
        """The first 1,000 errors by line, column, rule and what to do, in pages; all are counted by rule."""
        tenant = file_api.caller(request).tenant
        file = file_api.get_file(tenant, file_id)
        found = file_errors.errors_of(tenant, file)
        asked = request.query_params
        listed = found.of_rule(asked.get("rule", ""))
        if asked.get("as", "json") == "csv":
            name = f"{file.name}.errors.csv"
            return attachment(
                request._request, file_errors.as_csv(listed), filename=name, content_type="text/csv"
            )
        after = asked.get("after", "0")
        if not after.isdecimal() or len(after) > 9:
            raise Refusal("There is no such error.", param="after")
        rest = [one for one in listed if one.number > int(after)]
        shown = [one.as_json() for one in rest[: page_size(asked)]]
        return Response(
            {
                "object": "list",
                "data": shown,
                "first_id": shown[0]["id"] if shown else None,
                "last_id": shown[-1]["id"] if shown else None,
                "has_more": len(rest) > len(shown),
                "error_count": found.count,
                "errors_by_rule": found.by_rule,
            }
        )


urlpatterns = [
    path("files/<str:file_id>/read", FileReadView.as_view(), name="file-read"),
    path("files/<str:file_id>/errors", FileErrorsView.as_view(), name="file-errors"),
]
