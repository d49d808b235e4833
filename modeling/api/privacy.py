"""/v1/privacy/ledger: every line of the ledger, what is left, and the head to keep."""

from __future__ import annotations

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.response import Response

from modeling.actions import chain
from modeling.models import PrivacyEntry
from modeling.queries.privacy import account_rows
from saas.lib.errors import Refusal
from saas.lib.http import page_size
from tenants.access import ApiRequest, TenantAPIView

PAGE = [
    OpenApiParameter("after", int, description="The sequence number after which the page starts."),
    OpenApiParameter("limit", int, description="1 to 100, 20 when left out."),
    OpenApiParameter(
        "format",
        str,
        enum=["chain"],
        description="chain: the whole ledger with what its hashes cover, for `python -m modeling.core.verify`.",
    ),
]


def entry_body(entry: PrivacyEntry) -> dict[str, Any]:
    """One line with everything its hash covers, floats as hexadecimal text where they count."""
    return {
        "object": "privacy.entry",
        "seq": entry.seq,
        "at": entry.at.isoformat(),
        "kind": entry.kind,
        "account": str(entry.account_id),
        "job": entry.job.public_id,
        "partition": entry.partition,
        "mechanism": entry.mechanism,
        "facts": entry.facts,
        "rdp": entry.rdp,
        "epsilon": entry.epsilon,
        "epsilon_replace_one": entry.epsilon_replace_one,
        "previous_hash": entry.previous_hash,
        "entry_hash": entry.entry_hash,
    }


class LedgerView(TenantAPIView):
    """The tenant's privacy ledger."""

    scope_name = "privacy"

    @extend_schema(
        operation_id="getLedger", responses={200: OpenApiTypes.OBJECT}, parameters=PAGE, tags=["Privacy"]
    )
    def get(self, request: ApiRequest) -> Response:
        """Lines, oldest first, with the budgets and the head as they stand now."""
        tenant, params = request.auth.tenant, request.query_params
        if "format" in params:
            if params["format"] != "chain":
                raise Refusal("format is chain, or left out.", param="format")
            return Response(chain.exported(tenant))
        size, after = page_size(params), params.get("after", "0")
        if not after.isdecimal() or len(after) > 15:
            raise Refusal("after is a sequence number.", param="after")
        entries = PrivacyEntry.objects.of(tenant).filter(seq__gt=int(after)).select_related("job")
        found = list(entries.order_by("seq")[: size + 1])
        return Response(
            {
                "object": "list",
                "data": [entry_body(entry) for entry in found[:size]],
                "has_more": len(found) > size,
                "accounts": account_rows(tenant),
                "head": chain.export_head(tenant).body(),
            }
        )
