"""GET /v1/usage: what was metered this month, beside what the plan includes."""

from __future__ import annotations

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.response import Response

from billing import actions, queries
from tenants.access import ApiRequest, TenantAPIView


class UsageView(TenantAPIView):
    """Usage since the first of the month, UTC."""

    scope_name = "usage"

    @extend_schema(responses={200: OpenApiTypes.OBJECT})
    def get(self, request: ApiRequest) -> Response:
        """Quantities by kind, the plan and its limits."""
        tenant = request.auth.tenant
        plan, standing = queries.account_of(tenant)
        used = queries.usage_this_month(tenant)
        return Response(
            {
                "object": "usage",
                "plan": plan.code,
                "standing": str(standing),
                "since": int(queries.month_start().timestamp()),
                "used": {kind: float(quantity) for kind, quantity in used.items()},
                "stored_bytes": actions.stored_bytes(tenant),
                "limits": {
                    "storage_bytes": plan.storage_bytes,
                    "running_jobs": plan.running_jobs,
                    "queued_jobs": plan.queued_jobs,
                    "predictions": plan.predictions,
                    "tokens": plan.tokens,
                    "training_seconds": plan.training_seconds_included,
                },
            }
        )
