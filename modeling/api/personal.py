"""/v1/personal_data_policy: what is done with personal data in uploads."""

from __future__ import annotations

from typing import Any

from django.urls import path
from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.response import Response

from modeling.actions import personal_policy
from modeling.actions.personal_policy import InForce
from modeling.api.files_schema import shape
from modeling.core.personal_data import ALL_KINDS
from modeling.core.personal_policy import ACTIONS
from saas.lib.errors import Forbidden
from tenants.access import ApiRequest, TenantAPIView

_ACTION = {"type": "string", "enum": list(ACTIONS)}
POLICY = shape(
    "personal_data_policy",
    {
        "entities": {"type": "object", "properties": dict.fromkeys(ALL_KINDS, _ACTION)},
        "columns": {"type": "string", "enum": ["text", "all"]},
        "is_own": {"type": "boolean"},
    },
)
ANSWER = {200: OpenApiResponse(POLICY)}


class PolicyRequest(serializers.Serializer[Any]):
    """POST /v1/personal_data_policy: what is left out stays; {} brings the vertical's policy back."""

    entities = serializers.DictField(child=serializers.ChoiceField(choices=list(ACTIONS)), required=False)
    columns = serializers.ChoiceField(choices=["text", "all"], required=False)


def policy_body(held: InForce) -> dict[str, Any]:
    """A policy on the wire."""
    return {"object": "personal_data_policy", **held.as_json(), "is_own": held.is_own}


class PersonalPolicyView(TenantAPIView):
    """The tenant's policy."""

    scope_name = "files"

    @extend_schema(operation_id="getPersonalDataPolicy", responses=ANSWER, tags=["Personal data"])
    def get(self, request: ApiRequest) -> Response:
        """For each kind what uploads undergo: off, report (counted), mask or block; and which columns are looked at."""
        return Response(policy_body(personal_policy.policy_of_tenant(request.auth.tenant)))

    @extend_schema(
        operation_id="setPersonalDataPolicy", request=PolicyRequest, responses=ANSWER, tags=["Personal data"]
    )
    def post(self, request: ApiRequest) -> Response:
        """Change it for the uploads to come; what is left out stays, and {} brings your vertical's policy back.

        Needs a key with the scope `predictions`, as the rules of endpoints do.
        """
        if not request.auth.may("predictions"):
            raise Forbidden(
                "Changing the policy needs an API key with the scope `predictions`.", code="missing_scope"
            )
        wanted = PolicyRequest(data=request.data)
        wanted.is_valid(raise_exception=True)
        held = personal_policy.set_policy(
            request.auth.tenant, request.auth.actor, dict(wanted.validated_data)
        )
        return Response(policy_body(held))


urlpatterns = [path("personal_data_policy", PersonalPolicyView.as_view(), name="personal-data-policy")]
