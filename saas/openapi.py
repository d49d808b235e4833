"""GET /v1/openapi.json: the whole API, with the gateway's operations, which live outside Django REST framework."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_GET
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.generators import SchemaGenerator

TEXT: dict[str, Any] = {"type": "string"}
ITEMS: dict[str, Any] = {"type": "array", "items": TEXT, "maxItems": 1000}
MODEL: dict[str, Any] = {"type": "string", "description": "A base model, ft:… model or endpoint name."}
ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": TEXT,
                "type": TEXT,
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def _operation(
    summary: str, required: list[str], properties: dict[str, Any], *, description: str = ""
) -> dict[str, Any]:
    """One POST operation with a JSON body and the errors that every gateway route shares."""
    refused = {"description": "Refused", "content": {"application/json": {"schema": ERROR}}}
    body = {"type": "object", "required": required, "properties": properties}
    return {
        "post": {
            "operationId": summary.lower().replace(" ", "_"),
            "summary": summary,
            "description": description,
            "tags": ["predict"],
            "security": [{"apiKey": []}],
            "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
            "responses": {
                "200": {
                    "description": "Answered",
                    "content": {"application/json": {"schema": {"type": "object"}}},
                },
                **dict.fromkeys(("400", "401", "402", "403", "404", "413", "429", "503"), refused),
            },
        }
    }


ROW: dict[str, Any] = {
    "type": "object",
    "description": "One row of a table: a text, a number, true, false or null by column name.",
    "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
}

GATEWAY: dict[str, Any] = {
    "/v1/classify": _operation(
        "Classify texts or rows",
        ["model", "inputs"],
        {
            "model": MODEL,
            "inputs": {"type": "array", "items": {"oneOf": [TEXT, ROW]}, "minItems": 1, "maxItems": 2048},
            "top_k": {"type": "integer", "minimum": 1},
            "abstain_below": {"type": "number", "minimum": 0, "maximum": 1},
        },
        description=(
            "`results` has one entry an input: `label` (the best, null when `abstained`), its `confidence`, and "
            "`labels`, the best `top_k` with theirs. A model of several labels a row gives each label its own "
            "confidence and adds `assigned`: the labels of at least .5. `suggested_abstain_below` is the threshold "
            "that the model's private calibration found (null where it found none); it counts only when sent as "
            "`abstain_below`. A model on columns takes objects of cells by column name: null, an empty or an absent "
            "cell is missing, numbers outside the declared bounds are put on them, and an undeclared category counts "
            "as missing. One that predicts a number answers `value`, with `low` and `high` around it between which "
            "nine in ten held-out people lay, where that could be released."
        ),
    ),
    "/v1/recommend": _operation(
        "Recommend items",
        ["model"],
        {
            "model": MODEL,
            "user": TEXT,
            "history": ITEMS,
            "similar_to": TEXT,
            "k": {"type": "integer", "minimum": 1, "maximum": 1000},
            "exclude": ITEMS,
        },
        description=(
            "`items` are the best `k`, each with its score, without the history and `exclude`. `basis` says what they "
            "rest on: `history` (its items that are in the model's catalogue; repeated and unknown ones are dropped), "
            "`popular` (no item was known: everybody's most chosen ones) or `similar` (to `similar_to`)."
        ),
    ),
    "/v1/embeddings": _operation(
        "Embed texts",
        ["model", "input"],
        {"model": MODEL, "input": {"anyOf": [TEXT, ITEMS]}, "encoding_format": {"enum": ["float", "base64"]}},
    ),
    "/v1/chat/completions": _operation(
        "Continue a conversation",
        ["model", "messages"],
        {
            "model": MODEL,
            "messages": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "required": ["role", "content"],
                    "properties": {"role": {"enum": ["system", "user", "assistant"]}, "content": TEXT},
                },
            },
            "stream": {"type": "boolean"},
            "stream_options": {"type": "object", "properties": {"include_usage": {"type": "boolean"}}},
            "max_tokens": {"type": "integer", "minimum": 1},
            "temperature": {"type": "number", "minimum": 0, "maximum": 2},
            "top_p": {"type": "number", "minimum": 0, "maximum": 1},
            "stop": {"anyOf": [TEXT, ITEMS]},
            "seed": {"type": "integer"},
        },
    ),
}


class KeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How drf-spectacular writes our authentication."""

    target_class = "tenants.access.KeyAuthentication"
    name = "apiKey"

    def get_security_definition(self, auto_schema: Any) -> dict[str, Any]:
        """A bearer token."""
        return {"type": "http", "scheme": "bearer"}


def add_gateway(result: dict[str, Any], **_: Any) -> dict[str, Any]:
    """drf-spectacular's post-processing hook: the gateway's paths."""
    result["paths"].update(GATEWAY)
    return result


@require_GET
def openapi(request: HttpRequest) -> JsonResponse:
    """The document; public, since it names no tenant."""
    made = SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    return JsonResponse(made)
