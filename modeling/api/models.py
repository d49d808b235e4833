"""/v1/models: base models and the tenant's own, their cards, and their deletion."""

from __future__ import annotations

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.response import Response

from modeling.actions import versions
from modeling.core.bases import BASES
from modeling.models import ModelVersion
from modeling.serializers.models import base_body, version_body
from saas.lib.errors import Forbidden
from tenants.access import ApiRequest, TenantAPIView
from tenants.models import Tenant
from tenants.scope import TenantQuerySet

OBJECT = {200: OpenApiTypes.OBJECT}


def versions_of(tenant: Tenant) -> TenantQuerySet[ModelVersion]:
    """The tenant's models that can be used."""
    return (
        ModelVersion.objects.of(tenant).filter(state=ModelVersion.State.READY).select_related("job", "tenant")
    )


class ModelsView(TenantAPIView):
    """All models that the caller can name."""

    scope_name = "models"

    @extend_schema(operation_id="listModels", responses=OBJECT, tags=["Models"])
    def get(self, request: ApiRequest) -> Response:
        """The tenant's own, newest first, then the base models; one page, as OpenAI's."""
        own = [version_body(version) for version in versions_of(request.auth.tenant).order_by("-pk")]
        return Response({"object": "list", "data": own + [base_body(base) for base in BASES]})


class ModelView(TenantAPIView):
    """One model."""

    scope_name = "models"

    @extend_schema(operation_id="getModel", responses=OBJECT, tags=["Models"])
    def get(self, request: ApiRequest, name: str) -> Response:
        """The model."""
        if name in BASES:
            return Response(base_body(name))
        return Response(version_body(versions.usable_version(request.auth.tenant, name)))

    @extend_schema(operation_id="deleteModel", responses=OBJECT, tags=["Models"])
    def delete(self, request: ApiRequest, name: str) -> Response:
        """Destroy a model's weights for good; its card and its place in the ledger stay."""
        if name in BASES:
            raise Forbidden("Base models cannot be deleted.")
        tenant = request.auth.tenant
        versions.delete_version(tenant, request.auth.actor, versions.usable_version(tenant, name))
        return Response({"id": name, "object": "model", "deleted": True})


class CardView(TenantAPIView):
    """One model's card."""

    scope_name = "models"

    @extend_schema(operation_id="getModelCard", responses=OBJECT, tags=["Models"])
    def get(self, request: ApiRequest, name: str) -> Response:
        """The card as JSON."""
        return Response(versions.usable_version(request.auth.tenant, name).card)
