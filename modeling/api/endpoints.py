"""/v1/endpoints: the names a tenant calls, who answers to them, and how that changes: split, shadow, rules, back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.response import Response

from modeling.actions import endpoints, remembering, warming
from modeling.actions.versions import usable_version
from modeling.models import Endpoint, EndpointChange, ModelVersion
from modeling.serializers.endpoints import (
    EndpointChangeRequest,
    EndpointRequest,
    RollbackRequest,
    change_body,
    change_id,
    endpoint_body,
)
from saas.lib.errors import Forbidden, NotFound
from saas.lib.http import cursor_page, page_size
from tenants.access import ApiRequest, TenantAPIView
from tenants.audit import Actor
from tenants.models import Tenant
from tenants.scope import scope

OBJECT = {200: OpenApiTypes.OBJECT}
ONCE = OpenApiParameter("Idempotency-Key", str, OpenApiParameter.HEADER)
PAGE = [
    OpenApiParameter("after", str, description="The id after which the page starts."),
    OpenApiParameter("limit", int, description="1 to 100, 20 when left out."),
]


def carried_out(
    request: ApiRequest,
    path: str,
    answering: Callable[[Tenant], ModelVersion | None],
    change: Callable[[Tenant, Actor], dict[str, Any]],
) -> Response:
    """Warm the version that will answer, then change the endpoint: once for one Idempotency-Key.

    Both are called in the tenant's scope; the engine is asked between their transactions.
    """
    tenant, key = request.auth.tenant, request.headers.get("Idempotency-Key", "")
    with scope(tenant):
        version = None if remembering.is_known(tenant, key, path) else answering(tenant)
    if version is not None:
        warming.require_warm(tenant, version)
    with scope(tenant):
        status, body = remembering.once(
            tenant, key, path, request.data, lambda: (200, change(tenant, request.auth.actor))
        )
    return Response(body, status=status)


class EndpointsView(TenantAPIView):
    """The tenant's endpoints."""

    scope_name = "models"
    scoped = False

    @extend_schema(operation_id="listEndpoints", responses=OBJECT, parameters=PAGE, tags=["Endpoints"])
    def get(self, request: ApiRequest) -> Response:
        """Endpoints, newest first."""
        tenant = request.auth.tenant
        with scope(tenant):
            rows = Endpoint.objects.of(tenant).select_related("version", "canary", "shadow")
            return Response(cursor_page(rows, request.query_params, cursor="name").body(endpoint_body))

    @extend_schema(
        operation_id="pointEndpoint",
        request=EndpointRequest,
        responses=OBJECT,
        parameters=[ONCE],
        tags=["Endpoints"],
    )
    def post(self, request: ApiRequest) -> Response:
        """Create the endpoint, or let another of the tenant's models answer all of its requests.

        The model is loaded before the switch: 409 where it cannot be, 503 where the engine does not answer, and the
        endpoint stays as it was. A model of another task is refused; `warnings` say when its labels differ. With
        `rules` a new endpoint has them from its first request on.
        """
        wanted = EndpointRequest(data=request.data)
        wanted.is_valid(raise_exception=True)
        name, model = wanted.validated_data["name"], wanted.validated_data["model"]
        rules = wanted.validated_data.get("rules")
        if rules:
            _require_rules_scope(request)

        def answering(tenant: Tenant) -> ModelVersion:
            endpoints.check_name(name)
            version = usable_version(tenant, model)
            found = Endpoint.objects.of(tenant).filter(name=name).select_related("version").first()
            if found is not None:
                endpoints.check_takes(found, version)
            return version

        def change(tenant: Tenant, actor: Actor) -> dict[str, Any]:
            version = usable_version(tenant, model)
            before = Endpoint.objects.of(tenant).filter(name=name).select_related("version").first()
            warnings = endpoints.differences(before, version) if before else []
            endpoint = endpoints.point(tenant, actor, name, version)
            return endpoint_body(_ruled(tenant, actor, endpoint, rules) if rules else endpoint, warnings)

        return carried_out(request, "endpoints", answering, change)


class EndpointView(TenantAPIView):
    """One endpoint."""

    scope_name = "models"
    scoped = False

    @extend_schema(operation_id="getEndpoint", responses=OBJECT, tags=["Endpoints"])
    def get(self, request: ApiRequest, name: str) -> Response:
        """The endpoint and who answers."""
        with scope(request.auth.tenant):
            return Response(endpoint_body(endpoints.find(request.auth.tenant, name)))

    @extend_schema(
        operation_id="changeEndpoint",
        request=EndpointChangeRequest,
        responses=OBJECT,
        parameters=[ONCE],
        tags=["Endpoints"],
    )
    def post(self, request: ApiRequest, name: str) -> Response:
        """Split the traffic, let a shadow listen, change the rules; only what is named changes, null ends it.

        A `canary` answers `percent` of 100 requests, drawn at random; the answer's `model` is the version that
        answered, its header `x-cloister-endpoint` the endpoint. A `shadow` is asked the same when there is room, is
        never billed, and its answers are only compared. `rules.log_days` over 0 keeps masked inputs and answers.
        """
        wanted = EndpointChangeRequest(data=request.data)
        wanted.is_valid(raise_exception=True)
        fields = wanted.validated_data
        if "rules" in fields:
            _require_rules_scope(request)

        def answering(tenant: Tenant) -> ModelVersion | None:
            found = endpoints.find(tenant, name)
            if not fields.get("canary"):
                return None
            version = usable_version(tenant, fields["canary"]["model"])
            endpoints.check_takes(found, version)
            return version

        def change(tenant: Tenant, actor: Actor) -> dict[str, Any]:
            return _changed(tenant, actor, name, fields)

        return carried_out(request, f"endpoints.{name[:63]}", answering, change)

    @extend_schema(operation_id="deleteEndpoint", responses=OBJECT, tags=["Endpoints"])
    def delete(self, request: ApiRequest, name: str) -> Response:
        """Remove the name with its history and its prediction log; the models stay."""
        tenant = request.auth.tenant
        with scope(tenant):
            endpoints.delete(tenant, request.auth.actor, endpoints.find(tenant, name))
        return Response({"id": name, "object": "endpoint", "deleted": True})


def _require_rules_scope(request: ApiRequest) -> None:
    """Who reads the prediction log decides what it keeps; raises Forbidden."""
    if not request.auth.may("predictions"):
        raise Forbidden(
            "Setting `rules` needs an API key with the scope `predictions`.", code="missing_scope"
        )


def _changed(tenant: Tenant, actor: Actor, name: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Carry out the named parts in one transaction; a refusal of one undoes all."""
    endpoint, warnings = endpoints.find(tenant, name), []
    if "canary" in fields:
        canary = fields["canary"]
        version = usable_version(tenant, canary["model"]) if canary else None
        warnings = endpoints.differences(endpoint, version) if version else []
        endpoint = endpoints.split(tenant, actor, name, version, canary["percent"] if canary else 0)
    if "shadow" in fields:
        shadow = usable_version(tenant, fields["shadow"]) if fields["shadow"] else None
        endpoint = endpoints.set_shadow(tenant, actor, name, shadow)
    if "rules" in fields:
        endpoint = _ruled(tenant, actor, endpoint, fields["rules"])
    return endpoint_body(endpoint, warnings)


def _ruled(tenant: Tenant, actor: Actor, endpoint: Endpoint, rules: dict[str, Any]) -> Endpoint:
    return endpoints.set_rules(
        tenant,
        actor,
        endpoint.name,
        personal_data=rules.get("personal_data", endpoint.personal_data),
        log_days=rules.get("log_days", endpoint.log_days),
        personal_kinds=rules.get("entities"),
        delete_predictions=rules["delete_predictions"],
    )


class PromoteView(TenantAPIView):
    """The canary becomes the version."""

    scope_name = "models"
    scoped = False

    @extend_schema(
        operation_id="promoteEndpoint", request=None, responses=OBJECT, parameters=[ONCE], tags=["Endpoints"]
    )
    def post(self, request: ApiRequest, name: str) -> Response:
        """Let the canary answer everything; 409 without one."""
        return carried_out(
            request,
            f"endpoints.{name[:63]}.promote",
            lambda tenant: endpoints.promoted(endpoints.find(tenant, name)),
            lambda tenant, actor: endpoint_body(endpoints.promote(tenant, actor, name)),
        )


class RollbackView(TenantAPIView):
    """Back to who answered before."""

    scope_name = "models"
    scoped = False

    @extend_schema(
        operation_id="rollbackEndpoint",
        request=RollbackRequest,
        responses=OBJECT,
        parameters=[ONCE],
        tags=["Endpoints"],
    )
    def post(self, request: ApiRequest, name: str) -> Response:
        """End a split if there is one, else go back to the version before; again goes further back.

        `change` names a change of the history, whose version then answers everything. Rules and shadow stay. 409 where
        nothing lies before.
        """
        wanted = RollbackRequest(data=request.data)
        wanted.is_valid(raise_exception=True)
        number = wanted.validated_data.get("change")

        def answering(tenant: Tenant) -> ModelVersion:
            found = endpoints.find(tenant, name)
            version: ModelVersion = endpoints.rollback_goal(tenant, found, number).version
            endpoints.check_takes(found, version)
            return version

        return carried_out(
            request,
            f"endpoints.{name[:63]}.rollback",
            answering,
            lambda tenant, actor: endpoint_body(endpoints.rollback(tenant, actor, name, number)),
        )


class HistoryView(TenantAPIView):
    """What answered when."""

    scope_name = "models"

    @extend_schema(operation_id="listEndpointHistory", responses=OBJECT, parameters=PAGE, tags=["Endpoints"])
    def get(self, request: ApiRequest, name: str) -> Response:
        """Changes of the endpoint, newest first: who answered from then on, and who changed it."""
        tenant, params = request.auth.tenant, request.query_params
        endpoint, size = endpoints.find(tenant, name), page_size(params)
        rows = EndpointChange.objects.of(tenant).filter(endpoint=endpoint).order_by("-number")
        if params.get("after"):
            rows = rows.filter(number__lt=_number(params["after"]))
        found = list(rows.select_related("version", "canary", "shadow")[: size + 1])
        data = [change_body(change) for change in found[:size]]
        ids = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else dict.fromkeys(_ENDS)
        return Response({"object": "list", "data": data, **ids, "has_more": len(found) > size})


_ENDS = ("first_id", "last_id")


def _number(after: str) -> int:
    tail = after.rpartition("-")[2]
    if not tail.isdecimal() or len(tail) > 9 or after != change_id(int(tail)):
        raise NotFound("The object named by `after` does not exist in this list.", param="after")
    return int(tail)
