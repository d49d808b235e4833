"""POST /v1/datasets/{id}: what is what in a dataset; /v1/datasets/{id}/quality: its private quality report."""

from __future__ import annotations

from typing import Any

from django.urls import path
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.response import Response

from modeling.actions import dataset_schema, quality
from modeling.models import Dataset
from modeling.serializers.dataset_schema import QualityRequest, SchemaRequest, quality_body
from saas.lib.errors import NotFound, Refusal
from tenants.access import ApiRequest, TenantAPIView
from tenants.audit import Actor
from tenants.models import Tenant

OBJECT = {200: OpenApiTypes.OBJECT}


def found_dataset(tenant: Tenant, public_id: str, *, param: str = "dataset_id") -> Dataset:
    """A dataset by its public id; raises NotFound."""
    found = Dataset.objects.of(tenant).filter(public_id=public_id, deleted_at=None).first()
    if found is None:
        raise NotFound("There is no such dataset.", param=param)
    return found


def declare(tenant: Tenant, actor: Actor, dataset: Dataset, data: Any) -> Dataset:
    """Keep what a request declares about a dataset; raises Refusal for what cannot be."""
    asked = SchemaRequest(data=data)
    asked.is_valid(raise_exception=True)
    version = dataset_schema.readable_version(tenant, dataset)
    present = dataset_schema.present(dataset, version)
    columns = asked.validated_data.get("columns")
    declared = asked.validated_data.get("declared")
    schema = dataset_schema.from_columns(
        {**present.roles, **_by_use(present)} if columns is None else columns,
        present.declared if declared is None else {name: dict(one) for name, one in declared.items()},
    )
    return dataset_schema.declare(tenant, actor, dataset, version, schema)


def _by_use(schema: dataset_schema.Schema) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, use in schema.uses.items():
        found.setdefault(use, []).append(name)
    return found


class QualityView(TenantAPIView):
    """The report of a dataset's newest version."""

    scope_name = "files"

    @extend_schema(operation_id="datasets_quality", responses=OBJECT, tags=["Datasets"])
    def get(self, request: ApiRequest, dataset_id: str) -> Response:
        """How far the report is, and its numbers and advice. Private: without noise, not for sharing."""
        tenant = request.auth.tenant
        return Response(_body(tenant, found_dataset(tenant, dataset_id)))

    @extend_schema(
        operation_id="datasets_measure_quality", request=QualityRequest, responses=OBJECT, tags=["Datasets"]
    )
    def post(self, request: ApiRequest, dataset_id: str) -> Response:
        """Measure again, in the background; `compare_with` names another dataset, such as a validation file's."""
        tenant = request.auth.tenant
        asked = QualityRequest(data=request.data)
        asked.is_valid(raise_exception=True)
        dataset = found_dataset(tenant, dataset_id)
        other = asked.validated_data.get("compare_with")
        compared = found_dataset(tenant, other, param="compare_with") if other else None
        if compared == dataset:
            raise Refusal("Compare a dataset with another one.", param="compare_with", code="same_dataset")
        quality.ask(dataset_schema.readable_version(tenant, dataset), compared=compared)
        return Response(_body(tenant, dataset))


def _body(tenant: Tenant, dataset: Dataset) -> dict[str, Any]:
    version = dataset_schema.readable_version(tenant, dataset)
    report = quality.report_of(version)
    return quality_body(dataset, version, report, quality.numbers_of(report) if report else None)


urlpatterns = [path("datasets/<str:dataset_id>/quality", QualityView.as_view(), name="dataset-quality")]
