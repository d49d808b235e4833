"""/v1/endpoints: the names a tenant calls, and which version answers."""

from __future__ import annotations

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.response import Response

from modeling.actions import endpoints
from modeling.actions.versions import usable_version
from modeling.models import Endpoint
from modeling.serializers.models import EndpointRequest, endpoint_body
from saas.lib.errors import NotFound
from saas.lib.http import cursor_page
from tenants.access import ApiRequest, TenantAPIView
from tenants.models import Tenant

OBJECT = {200: OpenApiTypes.OBJECT}


def find_endpoint(tenant: Tenant, name: str) -> Endpoint:
    """The tenant's endpoint by name; raises NotFound."""
    found = Endpoint.objects.of(tenant).filter(name=name).select_related("version").first()
    if found is None:
        raise NotFound("There is no such endpoint.")
    return found


class EndpointsView(TenantAPIView):
    """The tenant's endpoints."""

    scope_name = "models"

    @extend_schema(operation_id="listEndpoints", responses=OBJECT, tags=["Endpoints"])
    def get(self, request: ApiRequest) -> Response:
        """Endpoints, newest first."""
        rows = Endpoint.objects.of(request.auth.tenant).select_related("version")
        return Response(cursor_page(rows, request.query_params, cursor="name").body(endpoint_body))

    @extend_schema(
        operation_id="pointEndpoint", request=EndpointRequest, responses=OBJECT, tags=["Endpoints"]
    )
    def post(self, request: ApiRequest) -> Response:
        """Create the endpoint, or move it to another of the tenant's models."""
        wanted = EndpointRequest(data=request.data)
        wanted.is_valid(raise_exception=True)
        tenant = request.auth.tenant
        version = usable_version(tenant, wanted.validated_data["model"])
        endpoint = endpoints.point(tenant, request.auth.actor, wanted.validated_data["name"], version)
        return Response(endpoint_body(endpoint))


class EndpointView(TenantAPIView):
    """One endpoint."""

    scope_name = "models"

    @extend_schema(operation_id="getEndpoint", responses=OBJECT, tags=["Endpoints"])
    def get(self, request: ApiRequest, name: str) -> Response:
        """The endpoint and its version."""
        return Response(endpoint_body(find_endpoint(request.auth.tenant, name)))

    @extend_schema(operation_id="deleteEndpoint", responses=OBJECT, tags=["Endpoints"])
    def delete(self, request: ApiRequest, name: str) -> Response:
        """Remove the name; the models stay."""
        tenant = request.auth.tenant
        endpoints.delete(tenant, request.auth.actor, find_endpoint(tenant, name))
        return Response({"id": name, "object": "endpoint", "deleted": True})
