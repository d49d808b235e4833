"""HTTP habits shared by every app: request ids, error bodies, cursor pages."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from django.core.exceptions import RequestDataTooBig
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.views.defaults import page_not_found, server_error
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.views import exception_handler

from saas.lib.errors import NotFound, Refusal
from saas.lib.object_store import StoreUnavailable

Row = TypeVar("Row", bound=Model)
log = logging.getLogger("cloister.http")
PAGE_SIZE = 20
PAGE_SIZE_MAX = 100


def api_error(error: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's exception handler: every expected error in the OpenAI shape; bugs rise."""
    refused = _refusal(error)
    if refused is not None:
        return Response(refused.body(), status=refused.status, headers=refused.headers)
    if isinstance(error, RequestDataTooBig):
        too_big = Refusal("The body is too large.", status=413, code="body_too_large")
        return Response(too_big.body(), status=too_big.status)
    response = exception_handler(error, context)
    if response is None:
        return None
    refusal = Refusal(_sentence(error), status=response.status_code, code=_code(error), param=_param(error))
    return Response(refusal.body(), status=response.status_code, headers=dict(response.headers))


def _refusal(error: Exception) -> Refusal | None:
    """What the caller is told of an expected error; None for a bug."""
    if isinstance(error, StoreUnavailable):
        log.error("object store: %s", error)
        return Refusal(
            _("The storage of files does not answer just now. Try again shortly."),
            status=503,
            code="storage_unavailable",
            kind="server_error",
            headers={"Retry-After": "5"},
        )
    return error if isinstance(error, Refusal) else None


def _first(detail: Any) -> tuple[str | None, str]:
    if isinstance(detail, dict) and detail:
        name, inner = next(iter(detail.items()))
        return str(name), _first(inner)[1]
    if isinstance(detail, list) and detail:
        return None, _first(detail[0])[1]
    return None, str(detail)


def _sentence(error: Exception) -> str:
    if isinstance(error, exceptions.APIException):
        name, sentence = _first(error.detail)
        return f"{name}: {sentence}" if name else sentence
    return "Not found."


def _param(error: Exception) -> str | None:
    return _first(error.detail)[0] if isinstance(error, exceptions.ValidationError) else None


def _code(error: Exception) -> str:
    if isinstance(error, exceptions.ValidationError):
        return "invalid_value"
    if isinstance(error, exceptions.APIException):
        return str(error.default_code)
    return "not_found"


@dataclass(frozen=True)
class CursorPage:
    """One page of a list: the rows and whether more follow."""

    rows: Sequence[Any]
    has_more: bool

    def body(self, serialize: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """The OpenAI list body with first_id, last_id and has_more."""
        data = [serialize(row) for row in self.rows]
        return {
            "object": "list",
            "data": data,
            "first_id": data[0]["id"] if data else None,
            "last_id": data[-1]["id"] if data else None,
            "has_more": self.has_more,
        }


def page_size(params: Any) -> int:
    """The `limit` parameter: 1 to 100, 20 when absent; raises Refusal on anything else."""
    raw = str(params.get("limit", PAGE_SIZE))
    if not raw.isdecimal() or len(raw) > 9 or not 1 <= int(raw) <= PAGE_SIZE_MAX:
        raise Refusal(f"limit must be a whole number from 1 to {PAGE_SIZE_MAX}.", param="limit")
    return int(raw)


def cursor_page(rows: QuerySet[Row], params: Any, *, cursor: str = "public_id") -> CursorPage:
    """Newest first, after the object named by `after` (a public id in the same list), at most `limit` rows."""
    size = page_size(params)
    rows = rows.order_by("-id")
    after = params.get("after")
    if after:
        anchor = rows.filter(**{cursor: after}).values_list("pk", flat=True).first()
        if anchor is None:
            raise NotFound("The object named by `after` does not exist in this list.", param="after")
        rows = rows.filter(pk__lt=anchor)
    found = list(rows[: size + 1])
    return CursorPage(rows=found[:size], has_more=len(found) > size)


def no_such_page(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler404: the page, or the OpenAI error body under /v1."""
    if not request.path.startswith("/v1/"):
        return page_not_found(request, exception)
    unknown = NotFound(
        f"There is no {request.method} {request.path}. See /v1/openapi.json.", code="unknown_url"
    )
    return JsonResponse(unknown.body(), status=unknown.status)


def broken(request: HttpRequest) -> HttpResponse:
    """Django's handler500: the page, or the OpenAI error body under /v1."""
    if not request.path.startswith("/v1/"):
        return server_error(request)
    ours = Refusal(
        "Something went wrong on our side.", status=500, code="internal_error", kind="server_error"
    )
    return JsonResponse(ours.body(), status=ours.status)


def _no_nul() -> HttpResponse:
    refusal = Refusal("An address must not contain NUL characters.")
    return JsonResponse(refusal.body(), status=refusal.status)


class RequestIdMiddleware:
    """Gives every request an id, returned as x-request-id; refuses addresses with NUL, which PostgreSQL cannot hold."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request.request_id = f"req_{secrets.token_hex(12)}"  # type: ignore[attr-defined]
        has_nul = "\0" in request.path_info or "%00" in request.META.get("QUERY_STRING", "")
        response = _no_nul() if has_nul else self.get_response(request)
        response.headers.setdefault("x-request-id", request.request_id)  # type: ignore[attr-defined]
        return response


class RefusalMiddleware:
    """Turns a Refusal that left a view into a page, or into JSON under /v1."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Answer expected refusals; let bugs rise."""
        refused = _refusal(error)
        if refused is None:
            return None
        if request.path.startswith("/v1/"):
            return JsonResponse(refused.body(), status=refused.status, headers=refused.headers)
        return render(request, "refusal.html", {"refusal": refused}, status=refused.status)
