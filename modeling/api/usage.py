"""/v1/models/{name}/usage: how one model was called."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from django.utils import timezone
from django.utils.dateparse import parse_datetime
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.response import Response

from modeling.actions import versions
from modeling.core.bases import BASES
from modeling.models.served import KEPT_DAYS
from modeling.queries import served
from saas.lib.errors import Refusal
from tenants.access import ApiRequest, TenantAPIView

_TIME = "Epoch seconds, or ISO 8601 with an offset."
_LATEST = 4_102_444_800  # the year 2100
_LOST_PLUS = re.compile(r" (?=\d\d:?\d\d$)")  # a + in an address that was not escaped


class ModelUsageView(TenantAPIView):
    """One model's requests, latency and usage."""

    scope_name = "usage"

    @extend_schema(
        operation_id="getModelUsage",
        responses={200: OpenApiTypes.OBJECT},
        parameters=[
            OpenApiParameter("from", str, description=f"{_TIME} By default a day before `to`."),
            OpenApiParameter("to", str, description=f"{_TIME} By default now."),
        ],
        tags=["Models"],
    )
    def get(self, request: ApiRequest, name: str) -> Response:
        """Totals and steps (5 minutes, an hour or a day by the length asked for), kept for 35 days.

        Latencies are of answered requests, estimated within the bounds of a histogram. `name` may be a base model.
        """
        tenant = request.auth.tenant
        if name not in BASES:
            versions.usable_version(tenant, name)
        params = request.query_params
        end = _moment(params, "to", timezone.now())
        start = _moment(params, "from", end - timedelta(days=1))
        if start >= end:
            raise Refusal("from must lie before to.", code="invalid_value", param="from")
        if end - start > timedelta(days=KEPT_DAYS):
            raise Refusal(f"Ask for at most {KEPT_DAYS} days.", code="invalid_value", param="from")
        return Response(served.usage_body(name, served.usage(tenant, name, start, end)))


def _moment(params: Any, name: str, default: datetime) -> datetime:
    """A moment given as a parameter; raises Refusal."""
    raw = str(params.get(name, "")).strip()
    if not raw:
        return default
    if raw.isascii() and raw.isdecimal() and len(raw) <= 12 and int(raw) <= _LATEST:
        return datetime.fromtimestamp(int(raw), UTC)
    try:
        found = parse_datetime(_LOST_PLUS.sub("+", raw))
    except ValueError:
        found = None
    if found is None or found.tzinfo is None or not 1971 <= found.year < 2100:
        raise Refusal(
            f"{name} is a time in epoch seconds or ISO 8601 with an offset.", code="invalid_value", param=name
        )
    return found
