"""GET /v1/openapi.json: the whole API, with the gateway's operations, which live outside Django REST framework."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_GET
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.generators import SchemaGenerator

TEXT: dict[str, Any] = {"type": "string"}
ITEMS: dict[str, Any] = {"type": "array", "items": TEXT, "maxItems": 10_000}
TEXTS: dict[str, Any] = {"type": "array", "items": TEXT, "minItems": 1, "maxItems": 2048}
STOPS: dict[str, Any] = {"type": "array", "items": TEXT, "maxItems": 4}
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

REFUSED = tuple(map(str, (400, 401, 402, 403, 404, 405, 408, 409, 413, 415, 422, 429, 500, 503, 504)))
REQUEST_HEADERS: list[dict[str, Any]] = [
    {
        "name": "Idempotency-Key",
        "in": "header",
        "description": (
            "The same key and body within 24 hours is billed once, and answered the same where the endpoint's rules "
            "let answers be kept (`idempotent-replayed: true`). 409 while the first is under way, 422 for another "
            "body. Streams ignore it."
        ),
        "schema": {"type": "string", "maxLength": 255},
    },
    {
        "name": "x-request-timeout-ms",
        "in": "header",
        "description": "How long the answer may take, at most the call's own limit; then 504 with code `timeout`.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 999_999_999},
    },
]
RETRY_AFTER: dict[str, Any] = {
    "description": "Seconds to wait before trying again.",
    "schema": {"type": "integer", "minimum": 1},
}


def _rate_headers(kind: str) -> dict[str, Any]:
    """What one of the two buckets says."""
    number = {"schema": {"type": "integer"}}
    return {
        f"x-ratelimit-limit-{kind}": {"description": f"{kind.title()} a minute by your plan.", **number},
        f"x-ratelimit-remaining-{kind}": {"description": f"{kind.title()} left now.", **number},
        f"x-ratelimit-reset-{kind}": {
            "description": "When all are back, such as 1.250s.",
            "schema": {"type": "string"},
        },
    }


ANSWER_HEADERS: dict[str, Any] = {
    "x-request-id": {"description": "This request's name for support.", "schema": {"type": "string"}},
    "openai-processing-ms": {
        "description": "Milliseconds until the answer began.",
        "schema": {"type": "integer"},
    },
    **_rate_headers("requests"),
    **_rate_headers("tokens"),
    "x-cloister-personal-data": {
        "description": "Under a rule for personal data: the rule, and how many of each kind the texts had.",
        "schema": {"type": "string"},
    },
    "idempotent-replayed": {
        "description": "true: remembered.",
        "schema": {"type": "string", "enum": ["true"]},
    },
}


def _operation(
    summary: str, required: list[str], properties: dict[str, Any], *, description: str = ""
) -> dict[str, Any]:
    """One POST operation with a JSON body, and the headers and errors that every gateway route shares."""
    refused = {
        "description": "Refused",
        "headers": {"x-request-id": ANSWER_HEADERS["x-request-id"], "retry-after": RETRY_AFTER},
        "content": {"application/json": {"schema": ERROR}},
    }
    body = {"type": "object", "required": required, "properties": properties}
    return {
        "post": {
            "operationId": summary.lower().replace(" ", "_"),
            "summary": summary,
            "description": description,
            "tags": ["predict"],
            "security": [{"apiKey": []}],
            "parameters": REQUEST_HEADERS,
            "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
            "responses": {
                "200": {
                    "description": "Answered",
                    "headers": ANSWER_HEADERS,
                    "content": {"application/json": {"schema": {"type": "object"}}},
                },
                **dict.fromkeys(REFUSED, refused),
            },
        }
    }


FILTER: dict[str, Any] = {
    "type": "object",
    "description": "By column of the catalogue: a value, a list of them, or {min, max} of a number.",
    "maxProperties": 20,
    "additionalProperties": {
        "anyOf": [
            {"type": ["string", "number"]},
            {"type": "array", "items": {"type": ["string", "number"]}, "minItems": 1, "maxItems": 1000},
            {
                "type": "object",
                "properties": {"min": {"type": "number"}, "max": {"type": "number"}},
                "additionalProperties": False,
            },
        ]
    },
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
            "nine in ten held-out people lay, where that could be released. Up to 2,048 inputs in 8 MiB; others' "
            "requests come in between. Where the endpoint's rules look for personal data, `personal_data` says how "
            "many of which kind were found by their shape (mail, phones, cards, ids; never people's names), and a "
            "blocked request is refused with code `personal_data`."
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
            "candidates": ITEMS,
            "filter": FILTER,
            "exclude_filter": FILTER,
            "diversity": {"type": "number", "minimum": 0, "maximum": 1},
        },
        description=(
            "`items` are exactly the best `k`, each with its score, without the history and `exclude`; with "
            "`candidates` those of them alone. `basis` says what they rest on: `history` (its items that are in the "
            "model's catalogue; repeated and unknown ones are dropped), `popular` (no item was known: everybody's most "
            "chosen ones) or `similar` (to `similar_to`). `unknown_items` counts by field the ids that the catalogue "
            "of the training does not have; items that came later are among them until the next training. An item must "
            "match every column of `filter` and none of `exclude_filter`; these are the catalogue's columns of "
            "categories, lists and numbers as they were at the training. `diversity` takes from an item's score what "
            "its text has in common with those above it: 0 not at all, 1 nothing else counts. The history lives in the "
            "request alone. Send what happened to the items to `/v1/recommend/events` with the answer's `id`."
        ),
    ),
    "/v1/embeddings": _operation(
        "Embed texts",
        ["model", "input"],
        {"model": MODEL, "input": {"anyOf": [TEXT, TEXTS]}, "encoding_format": {"enum": ["float", "base64"]}},
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
                    "properties": {
                        "role": {"enum": ["system", "developer", "user", "assistant"]},
                        "content": TEXT,
                    },
                },
            },
            "stream": {"type": "boolean"},
            "stream_options": {"type": "object", "properties": {"include_usage": {"type": "boolean"}}},
            "max_completion_tokens": {"type": "integer", "minimum": 1},
            "max_tokens": {"type": "integer", "minimum": 1, "description": "The older name of the same."},
            "temperature": {"type": "number", "minimum": 0, "maximum": 2},
            "top_p": {"type": "number", "minimum": 0, "maximum": 1},
            "stop": {"anyOf": [TEXT, STOPS]},
            "seed": {"type": "integer"},
            "frequency_penalty": {"type": "number", "minimum": -2, "maximum": 2},
            "presence_penalty": {"type": "number", "minimum": -2, "maximum": 2},
            "logit_bias": {"type": "object", "additionalProperties": {"type": "number"}},
            "logprobs": {"type": "boolean"},
            "top_logprobs": {"type": "integer", "minimum": 0, "maximum": 20},
            "response_format": {
                "type": "object",
                "required": ["type"],
                "description": "With `json_schema` every answer that ends by itself is valid after the schema.",
                "properties": {
                    "type": {"enum": ["text", "json_object", "json_schema"]},
                    "json_schema": {
                        "type": "object",
                        "required": ["name"],
                        "properties": {
                            "name": TEXT,
                            "schema": {"type": "object"},
                            "strict": {"type": "boolean"},
                        },
                    },
                },
            },
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
