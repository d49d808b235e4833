"""/v1/datasets/{id}/erasures: one person's rows made unreadable for good, and what was erased before."""

from __future__ import annotations

from django.urls import path
from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema
from rest_framework.response import Response

from modeling.actions import erasures
from modeling.api.dataset_versions import find_dataset
from modeling.api.files import PAGING
from modeling.api.files_schema import listing, shape
from modeling.models import Erasure
from modeling.serializers.dataset_versions import ErasureRequest, erasure_body
from saas.lib.errors import NotFound
from saas.lib.http import cursor_page
from tenants.access import ApiRequest, TenantAPIView
from tenants.scope import scope

_TEXT, _LIST = {"type": "string"}, {"type": "array", "items": {"type": "object"}}
ERASURE = shape(
    "erasure",
    {
        "id": _TEXT,
        "created_at": {"type": "integer"},
        "created_by": _TEXT,
        "person": _TEXT,
        "datasets": _LIST,
        "models": _LIST,
        "open_jobs": {"type": "array", "items": _TEXT},
        "certificate": {"type": ["object", "null"]},
    },
)


class ErasuresView(TenantAPIView):
    """Erasures that reached a dataset."""

    scope_name = "files"
    scoped = False  # erasing reads rows before it destroys their key

    @extend_schema(operation_id="erasures_create", request=ErasureRequest, responses={200: ERASURE})
    def post(self, request: ApiRequest, dataset_id: str) -> Response:
        """Erase one person from all versions, copies and backups. There is no way back."""
        tenant = request.auth.tenant
        with scope(tenant):
            dataset = find_dataset(tenant, dataset_id)
        wanted = ErasureRequest(data=request.data)
        wanted.is_valid(raise_exception=True)
        return Response(erasure_body(erasures.erase(tenant, request.auth.actor, dataset, wanted.asked())))

    @extend_schema(operation_id="erasures_list", responses={200: listing(ERASURE)}, parameters=PAGING)
    def get(self, request: ApiRequest, dataset_id: str) -> Response:
        """Erasures, the newest first. No name is kept."""
        tenant = request.auth.tenant
        with scope(tenant):
            rows = erasures.reaching(tenant, find_dataset(tenant, dataset_id))
            return Response(cursor_page(rows, request.query_params).body(erasure_body))


class ErasureView(TenantAPIView):
    """One erasure."""

    scope_name = "files"

    @extend_schema(operation_id="erasures_retrieve", responses={200: ERASURE})
    def get(self, request: ApiRequest, dataset_id: str, erasure_id: str) -> Response:
        """What was reached, which models learnt from the person, and the signed certificate."""
        tenant = request.auth.tenant
        rows = erasures.reaching(tenant, find_dataset(tenant, dataset_id))
        found: Erasure | None = rows.filter(public_id=erasure_id).first()
        if found is None:
            raise NotFound(_("There is no such erasure."), param="erasure_id")
        return Response(erasure_body(found))


urlpatterns = [
    path("datasets/<str:dataset_id>/erasures", ErasuresView.as_view(), name="erasures"),
    path("datasets/<str:dataset_id>/erasures/<str:erasure_id>", ErasureView.as_view(), name="erasure"),
]
