"""/v1/recommend/events: what people did with recommended items comes back as counts, without who they are."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.response import Response

from modeling.actions.recommendations import Event, record
from modeling.models import Endpoint, ModelVersion, RecommendedDay
from modeling.queries.recommended import DAYS, recommended
from modeling.serving.gateway_fields import Fields, check_text, wrong
from saas.lib.errors import NotFound, Refusal
from tenants.access import ApiRequest, TenantAPIView
from tenants.models import Tenant

MOST_EVENTS = 1_000
MOST_DAYS = 400
_PERSONAL = {"user", "user_id", "person", "customer", "customer_id", "unit", "session", "session_id"}
_KINDS = tuple(RecommendedDay.Kind.values)
_TEXT = {"type": "string"}
_EVENT = {
    "type": "object",
    "required": ["recommendation_id", "type"],
    "additionalProperties": False,
    "properties": {
        "recommendation_id": {**_TEXT, "maxLength": 400, "description": "The `id` of the answer."},
        "type": {"enum": list(_KINDS)},
        "item": {
            **_TEXT,
            "maxLength": 512,
            "description": "Left out of a `shown` event: every item of the list.",
        },
        "event_id": {**_TEXT, "maxLength": 128, "description": "To count the same thing twice on purpose."},
        "at": {"type": "integer", "description": "Epoch seconds; by default now."},
    },
}
_EVENTS = {
    "type": "object",
    "required": ["events"],
    "additionalProperties": False,
    "properties": {"events": {"type": "array", "minItems": 1, "maxItems": MOST_EVENTS, "items": _EVENT}},
}
_COUNT = {"type": "integer"}
_RECORDED = {
    "type": "object",
    "properties": {
        "object": {"enum": ["recommendation_events"]},
        "recorded": _COUNT,
        "repeated": _COUNT,
        "refused": {
            "type": "array",
            "items": {"type": "object", "properties": {"index": _COUNT, "code": _TEXT, "message": _TEXT}},
        },
    },
}


class EventsView(TenantAPIView):
    """Events of recommended items."""

    scope_name = "predict"

    @extend_schema(
        operation_id="recordRecommendationEvents",
        request={"application/json": _EVENTS},
        responses={200: _RECORDED},
        tags=["Recommendations"],
    )
    def post(self, request: ApiRequest) -> Response:
        """Count what happened to recommended items: shown, viewed, clicked, put in the cart, purchased, dismissed.

        Up to 1,000 events, for 30 days after the recommendation. The same event of the same item in the same list
        counts once, however often it is sent; a different `event_id` makes it another one. What is kept are counts by
        model, endpoint, day and place in the list: no person, no item. Nothing is trained on them. Events that cannot
        be counted are named in `refused`, the others count.
        """
        done = record(request.auth.tenant, _events(request.data))
        refused = [{"index": at, "code": code, "message": text} for at, code, text in done.refused]
        body = {"object": "recommendation_events", "recorded": done.counted, "repeated": done.repeated}
        return Response({**body, "refused": refused})


class SummaryView(TenantAPIView):
    """The counts."""

    scope_name = "usage"

    @extend_schema(
        operation_id="getRecommendationSummary",
        responses={200: OpenApiTypes.OBJECT},
        parameters=[
            OpenApiParameter(
                "model", str, required=True, description="A recommender's or an endpoint's name."
            ),
            OpenApiParameter("days", int, description=f"1 to {MOST_DAYS}, by default {DAYS}."),
        ],
        tags=["Recommendations"],
    )
    def get(self, request: ApiRequest) -> Response:
        """Counts in all, by day (UTC) and by place in the list, with the share of shown items that were clicked.

        `click_through` has a 95 % interval; it is null where no `shown` events were sent. Place 0 stands for all
        places behind the fiftieth.
        """
        name = _named(request.auth.tenant, str(request.query_params.get("model", "")))
        days = str(request.query_params.get("days", "")) or str(DAYS)
        if not (days.isascii() and days.isdecimal() and len(days) < 5 and 1 <= int(days) <= MOST_DAYS):
            raise Refusal(f"days is a number from 1 to {MOST_DAYS}.", code="invalid_value", param="days")
        return Response(recommended(request.auth.tenant, name, days=int(days)).body(name))


def _named(tenant: Tenant, name: str) -> str:
    """The name of one of the tenant's recommenders or endpoints; raises Refusal, NotFound."""
    if not name:
        raise Refusal("model is required.", code="missing_required_parameter", param="model")
    is_known = (
        len(name) <= 200
        and "\0" not in name
        and (
            ModelVersion.objects.of(tenant).filter(name=name, task="recommendation").exists()
            or Endpoint.objects.of(tenant).filter(name=name).exists()
        )
    )
    if not is_known:
        raise NotFound("There is no such recommender.", code="model_not_found", param="model")
    return name


def _events(data: Any) -> list[Event]:
    """The checked body; raises Refusal with the field that is wrong, and nothing of what was sent."""
    if not isinstance(data, dict):
        raise Refusal("The body must be a JSON object.", code="invalid_json")
    fields = Fields(data)
    given = fields.take("events")
    fields.finish()
    if not isinstance(given, list) or not 0 < len(given) <= MOST_EVENTS:
        raise wrong("events", f"must be a list of 1 to {MOST_EVENTS:,} events.")
    return [_event(f"events[{at}]", one) for at, one in enumerate(given)]


def _event(param: str, given: Any) -> Event:
    if not isinstance(given, dict):
        raise wrong(param, "must be an object.")
    if _PERSONAL & given.keys():
        raise wrong(param, "Send no user's or session's id: events are kept as counts.", code="personal_data")
    fields = Fields(given, prefix=f"{param}.")
    name = fields.text("recommendation_id", max_characters=400)
    kind = check_text(f"{param}.type", fields.take("type"), max_characters=16)
    if kind not in _KINDS:
        raise wrong(f"{param}.type", f"must be one of: {', '.join(_KINDS)}.")
    item = fields.item("item")
    if item is None and kind != RecommendedDay.Kind.SHOWN:
        raise wrong(f"{param}.item", "is required.", code="missing_required_parameter")
    event_id = fields.optional_text("event_id", max_characters=128)
    at = fields.integer("at", low=0, high=4_102_444_800)
    fields.finish()
    moment = None if at is None else datetime.fromtimestamp(at, UTC)
    return Event(name, kind, item or "", event_id or "", moment)
