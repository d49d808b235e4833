"""Endpoints, their history, their rules and their shadows on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rest_framework import serializers

from modeling.models import DefaultRules, Endpoint, EndpointChange, PersonalData
from modeling.models.endpoints import Ruled, Traffic


class _Exact(serializers.Serializer[Any]):
    """Refuses parameters that it does not have: a rule with a typing error in its name must not pass for set."""

    def to_internal_value(self, data: Any) -> Any:
        """As sent; raises ValidationError with the first unknown parameter."""
        unknown = [name for name in data if name not in self.fields] if isinstance(data, dict) else []
        if unknown:
            name = str(unknown[0])
            known = ", ".join(self.fields)
            raise serializers.ValidationError(
                {name[:64] if name.isidentifier() else "body": f"is unknown here; there are {known}."}
            )
        return super().to_internal_value(data)


class CanaryRequest(_Exact):
    """Who answers how many of 100 requests in the version's place."""

    model = serializers.CharField(max_length=200)
    percent = serializers.IntegerField(min_value=1, max_value=99)


class RulesRequest(_Exact):
    """What happens to the texts of requests; what is left out stays."""

    personal_data = serializers.ChoiceField(
        choices=PersonalData.choices,
        required=False,
        error_messages={"invalid_choice": f"must be one of {', '.join(PersonalData.values)}."},
    )
    entities = serializers.DictField(
        child=serializers.ChoiceField(choices=["off", "note", "mask", "block"]),
        required=False,
        help_text="What is done with single kinds, beside `personal_data`; {} ends all such choices.",
    )
    log_days = serializers.IntegerField(
        min_value=0, max_value=365, required=False, help_text="Days that the prediction log keeps; 0: no log."
    )
    delete_predictions = serializers.BooleanField(
        default=False, help_text="Agree that turning the log off deletes what it holds."
    )


class EndpointRequest(_Exact):
    """POST /v1/endpoints: create the endpoint or move it."""

    name = serializers.CharField(max_length=63)
    model = serializers.CharField(max_length=200)
    rules = RulesRequest(required=False)


class EndpointChangeRequest(_Exact):
    """POST /v1/endpoints/{name}: only what is named changes; null ends a split or a shadow."""

    canary = CanaryRequest(required=False, allow_null=True)
    shadow = serializers.CharField(max_length=200, required=False, allow_null=True)
    rules = RulesRequest(required=False)


class RollbackRequest(_Exact):
    """POST /v1/endpoints/{name}/rollback: to the version before, or to that of a change of the history."""

    change = serializers.IntegerField(min_value=1, max_value=2**31 - 1, required=False)


def rules_body(rules: Ruled) -> dict[str, Any]:
    """Rules for the texts of requests."""
    body = {"personal_data": rules.personal_data, "log_days": rules.log_days}
    if not rules.personal_kinds:
        return body
    return body | {
        "entities": {kind: "note" if one == "report" else one for kind, one in rules.personal_kinds.items()}
    }


def default_rules_body(rules: DefaultRules) -> dict[str, Any]:
    """The rules of models called by their own name."""
    return {"object": "prediction_rules", **rules_body(rules)}


def _traffic(row: Traffic) -> dict[str, Any]:
    canary = {"model": row.canary.name, "percent": row.canary_percent} if row.canary else None
    return {
        "model": row.version.name,
        "canary": canary,
        "shadow": row.shadow.name if row.shadow else None,
        "rules": rules_body(row),
    }


def endpoint_body(endpoint: Endpoint, warnings: Sequence[str] = ()) -> dict[str, Any]:
    """An endpoint and who answers; `warnings` say what callers may notice after a change."""
    body = {
        "id": endpoint.name,
        "object": "endpoint",
        "name": endpoint.name,
        **_traffic(endpoint),
        "created_at": int(endpoint.created_at.timestamp()),
    }
    return {**body, "warnings": list(warnings)} if warnings else body


def change_id(number: int) -> str:
    """How a change is named in `after`."""
    return f"change-{number}"


def change_body(change: EndpointChange) -> dict[str, Any]:
    """One line of an endpoint's history: what held from then on."""
    return {
        "id": change_id(change.number),
        "object": "endpoint.change",
        "change": change.number,
        "kind": change.kind,
        **_traffic(change),
        "restores": change.restores,
        "actor": change.actor,
        "created_at": int(change.at.timestamp()),
    }
