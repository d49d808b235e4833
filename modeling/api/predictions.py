"""The prediction log, of an endpoint and of models called by their own name; and the rules of the latter."""

from __future__ import annotations

from django.http import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.response import Response

from modeling.actions import default_rules, endpoints, predictions
from modeling.models import Endpoint
from modeling.serializers.endpoints import RulesRequest, default_rules_body
from saas.lib.errors import Refusal
from saas.lib.http import cursor_page
from saas.lib.streamed import attachment
from tenants.access import ApiRequest, TenantAPIView

OBJECT = {200: OpenApiTypes.OBJECT}
JSONL = "application/jsonl"
LOG = {(200, "application/json"): OpenApiTypes.OBJECT, (200, JSONL): OpenApiTypes.STR}
PAGE = [
    OpenApiParameter("after", str, description="The id after which the page starts."),
    OpenApiParameter("limit", int, description="1 to 100, 20 when left out."),
    OpenApiParameter("format", str, enum=["json", "jsonl"], description="jsonl: the whole log, a line each."),
]


def _answer(request: ApiRequest, endpoint: Endpoint | None) -> Response | HttpResponseBase:
    tenant, params = request.auth.tenant, request.query_params
    wanted = params.get("format", "json")
    if wanted not in ("json", "jsonl"):
        raise Refusal("format is json or jsonl.", param="format")
    if wanted == "jsonl":
        chunks = predictions.exported(tenant, request.auth.actor, endpoint)
        name = f"predictions-{endpoint.name if endpoint else 'models'}.jsonl"
        return attachment(request._request, chunks, filename=name, content_type=JSONL)
    page = cursor_page(predictions.kept(tenant, endpoint), params)
    bodies = {one.row.public_id: one.body() for one in predictions.opened(page.rows)}
    return Response(page.body(lambda row: bodies[row.public_id]))


class EndpointPredictionsView(TenantAPIView):
    """What an endpoint answered, where its rules keep a log."""

    scope_name = "predictions"

    @extend_schema(
        operation_id="listEndpointPredictions", responses=LOG, parameters=PAGE, tags=["Predictions"]
    )
    def get(self, request: ApiRequest, name: str) -> Response | HttpResponseBase:
        """Newest first: masked input, answer, who answered, and how long it took. Empty without a log."""
        return _answer(request, endpoints.find(request.auth.tenant, name))


class PredictionsView(TenantAPIView):
    """What models answered that were called by their own name."""

    scope_name = "predictions"

    @extend_schema(operation_id="listPredictions", responses=LOG, parameters=PAGE, tags=["Predictions"])
    def get(self, request: ApiRequest) -> Response | HttpResponseBase:
        """The same for calls of models by their own name, where `/v1/prediction_rules` keep a log."""
        return _answer(request, None)


class PredictionRulesView(TenantAPIView):
    """The rules of models called by their own name."""

    scope_name = "predictions"

    @extend_schema(operation_id="getPredictionRules", responses=OBJECT, tags=["Predictions"])
    def get(self, request: ApiRequest) -> Response:
        """The rules; out of the box personal data is left and nothing is kept."""
        return Response(default_rules_body(default_rules.default_rules(request.auth.tenant)))

    @extend_schema(
        operation_id="setPredictionRules", request=RulesRequest, responses=OBJECT, tags=["Predictions"]
    )
    def post(self, request: ApiRequest) -> Response:
        """Change them; what is left out stays. Turning the log off deletes what it holds."""
        wanted = RulesRequest(data=request.data)
        wanted.is_valid(raise_exception=True)
        fields, tenant = wanted.validated_data, request.auth.tenant
        now = default_rules.default_rules(tenant)
        changed = default_rules.set_default_rules(
            tenant,
            request.auth.actor,
            personal_data=fields.get("personal_data", now.personal_data),
            log_days=fields.get("log_days", now.log_days),
            personal_kinds=fields.get("entities"),
            delete_predictions=fields["delete_predictions"],
        )
        return Response(default_rules_body(changed))
