"""/v1/datasets/{id}/versions and /diff: the chain of a dataset's versions, and what differs between two of them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.urls import path
from django.utils.translation import gettext as _
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.response import Response

from modeling.actions import dataset_versions, remembering, version_diffs
from modeling.api.files_schema import listing, shape
from modeling.api.jobs import ONCE
from modeling.models import Dataset, DatasetVersion, VersionChange
from modeling.queries import lineage
from modeling.serializers.dataset_versions import VersionRequest, change_body, diff_body, version_body
from saas.lib.errors import NotFound, Refusal
from saas.lib.http import page_size
from tenants.access import ApiRequest, TenantAPIView
from tenants.models import Tenant

_TEXT, _NUMBER = {"type": "string"}, {"type": "integer"}
_MAYBE_TEXT, _MAYBE_NUMBER = {"type": ["string", "null"]}, {"type": ["integer", "null"]}
_MAYBE_OBJECT, _TEXTS = {"type": ["object", "null"]}, {"type": "array", "items": _TEXT}
VERSION = shape(
    "dataset.version",
    {
        "dataset": _TEXT,
        "number": _NUMBER,
        "status": {"type": "string", "enum": ["queued", "in_progress", "ready", "failed", "deleted"]},
        "mode": _TEXT,
        "parent": _MAYBE_NUMBER,
        "file": _MAYBE_TEXT,
        "created_at": _NUMBER,
        "created_by": _TEXT,
        "rows": _MAYBE_NUMBER,
        "units": _MAYBE_NUMBER,
        "unit": _TEXT,
        "changes": _MAYBE_OBJECT,
        "content_hash": _MAYBE_TEXT,
        "rows_hash": _MAYBE_TEXT,
        "jobs": _TEXTS,
        "models": _TEXTS,
        "progress": _MAYBE_OBJECT,
        "error": _MAYBE_OBJECT,
    },
)
DIFF = shape(
    "dataset.diff",
    {
        "dataset": _TEXT,
        "from": _NUMBER,
        "to": _NUMBER,
        "status": {"type": "string", "enum": ["in_progress", "ready"]},
        "rows": _MAYBE_OBJECT,
        "people": _MAYBE_OBJECT,
        "columns": _MAYBE_OBJECT,
        "classes": {"type": ["array", "null"], "items": {"type": "object"}},
        "listed": _MAYBE_NUMBER,
        "data": {"type": "array", "items": {"type": "object"}},
        "offset": _NUMBER,
        "has_more": {"type": "boolean"},
    },
)
NUMBERED = [
    OpenApiParameter("after", int, description="The version number below which the page starts."),
    OpenApiParameter("limit", int, description="1 to 100, 20 when left out."),
]
SIDES = [
    OpenApiParameter("from", int, required=True, description="The earlier version's number."),
    OpenApiParameter("to", int, required=True, description="The later version's number."),
    OpenApiParameter("kind", str, enum=["added", "removed", "changed"]),
    OpenApiParameter("offset", int, description="How many rows to pass over."),
    OpenApiParameter("limit", int, description="1 to 100, 20 when left out."),
]


def find_dataset(tenant: Tenant, public_id: str) -> Dataset:
    """A dataset that was not deleted; raises NotFound."""
    found = Dataset.objects.of(tenant).filter(public_id=public_id, deleted_at=None).first()
    if found is None:
        raise NotFound(_("There is no such dataset."), param="dataset_id")
    return found


def whole_number(params: Any, name: str, *, default: int | None = None) -> int:
    """A query parameter that is a whole number; raises Refusal."""
    raw = str(params.get(name, "" if default is None else default))
    if not raw.isdecimal() or len(raw) > 9:
        raise Refusal(_("%(name)s is a whole number.") % {"name": name}, param=name)
    return int(raw)


class VersionsView(TenantAPIView):
    """A dataset's versions."""

    scope_name = "files"

    @extend_schema(
        operation_id="dataset_versions_create",
        request=VersionRequest,
        responses={200: VERSION},
        parameters=[ONCE],
    )
    def post(self, request: ApiRequest, dataset_id: str) -> Response:
        """Ask for the next version: rows of a file added, people's rows replaced, people removed.

        It is made in the background; its number is given at once.
        """
        tenant = request.auth.tenant
        dataset = find_dataset(tenant, dataset_id)
        wanted = VersionRequest(data=request.data)
        wanted.is_valid(raise_exception=True)

        def effect() -> remembering.Answer:
            return 200, change_body(
                dataset_versions.start(tenant, request.auth.actor, dataset, wanted.asked())
            )

        key = request.headers.get("Idempotency-Key", "")
        status, body = remembering.once(tenant, key, f"datasets.{dataset_id}.versions", request.data, effect)
        return Response(body, status=status)

    @extend_schema(
        operation_id="dataset_versions_list", responses={200: listing(VERSION)}, parameters=NUMBERED
    )
    def get(self, request: ApiRequest, dataset_id: str) -> Response:
        """Versions, the newest first; one being made stands before them."""
        tenant, params = request.auth.tenant, request.query_params
        dataset, size = find_dataset(tenant, dataset_id), page_size(params)
        nodes = lineage.of_dataset(tenant, dataset)
        if params.get("after"):
            before = whole_number(params, "after")
            nodes = [node for node in nodes if node.version.number < before]
            change = None
        else:
            change = open_change(tenant, dataset)
        bodies = [change_body(change)] if change else []
        bodies += [version_body(node) for node in nodes[: size - len(bodies)]]
        is_more = len(nodes) > size - (1 if change else 0)
        numbers = [str(body["number"]) for body in bodies]
        ends = {"first_id": numbers[0] if numbers else None, "last_id": numbers[-1] if numbers else None}
        return Response({"object": "list", "data": bodies, **ends, "has_more": is_more})


def open_change(tenant: Tenant, dataset: Dataset) -> VersionChange | None:
    """The version that is being made, if one is."""
    rows = VersionChange.objects.of(tenant).filter(dataset=dataset, state__in=VersionChange.OPEN)
    return rows.select_related("dataset", "base", "file").first()


class VersionView(TenantAPIView):
    """One version."""

    scope_name = "files"

    @extend_schema(
        operation_id="dataset_versions_retrieve",
        responses={200: VERSION},
        parameters=[OpenApiParameter("number", int, OpenApiParameter.PATH)],
    )
    def get(self, request: ApiRequest, dataset_id: str, number: str) -> Response:
        """The version with its jobs and models; how far it is while it is made, and why it could not be."""
        tenant = request.auth.tenant
        dataset = find_dataset(tenant, dataset_id)
        asked = int(number) if number.isdecimal() and len(number) < 10 else 0
        versions = DatasetVersion.objects.of(tenant).filter(dataset=dataset, number=asked)
        version = versions.select_related("dataset", "file", "parent").first()
        if version is not None:
            return Response(version_body(lineage.of_version(tenant, version)))
        changes = VersionChange.objects.of(tenant).filter(dataset=dataset, number=asked)
        change = changes.select_related("dataset", "base", "file").order_by("-id").first()
        if change is None:
            raise NotFound(_("The dataset has no such version."), param="number")
        return Response(change_body(change))


class DiffView(TenantAPIView):
    """Two versions compared."""

    scope_name = "files"

    @extend_schema(operation_id="dataset_diff", responses={200: DIFF}, parameters=SIDES)
    def get(self, request: ApiRequest, dataset_id: str) -> Response:
        """Rows, people, columns and classes that differ, and a page of the differing rows by line.

        Large versions are compared in the background: ask again while the status is in_progress.
        """
        tenant, params = request.auth.tenant, request.query_params
        dataset = find_dataset(tenant, dataset_id)
        first = version_diffs.version_of(tenant, dataset, whole_number(params, "from"))
        second = version_diffs.version_of(tenant, dataset, whole_number(params, "to"))
        kind = params.get("kind", "")
        if kind not in ("", *version_diffs.KINDS):
            raise Refusal(_("kind is added, removed or changed."), param="kind")
        offset, size = whole_number(params, "offset", default=0), page_size(params)
        diff = version_diffs.ask(tenant, first, second)
        found = version_diffs.entries(diff, kind)
        shown = version_diffs.with_values(diff, found[offset : offset + size])
        has_more = len(found) > offset + size
        return Response(
            diff_body(diff, has_more=has_more, data=[asdict(row) for row in shown], offset=offset)
        )


urlpatterns = [
    path("datasets/<str:dataset_id>/versions", VersionsView.as_view(), name="dataset_versions"),
    path("datasets/<str:dataset_id>/versions/<str:number>", VersionView.as_view(), name="dataset_version"),
    path("datasets/<str:dataset_id>/diff", DiffView.as_view(), name="dataset_diff"),
]
