"""The API describes itself: OpenAPI 3.1 with every route under /v1, the gateway's included."""

from __future__ import annotations

from django.test import Client
from django.urls import get_resolver

from tests.architecture.matrix import routes


def test_it_works() -> None:
    body = Client().get("/v1/openapi.json").json()
    assert body["openapi"].startswith("3.1")
    present = {
        route.path
        for route in routes(get_resolver("saas.urls").url_patterns)
        if route.path.startswith("/v1/")
    }
    described = {path.rstrip("/") for path in body["paths"]}
    assert present - described - {"/v1/openapi.json"} == set()
    assert "/v1/chat/completions" in described
