"""The front-door list: pages, /v1, /stripe, /console, /healthz."""

from django.urls import include, path

from saas.console import console
from saas.health import healthz
from saas.openapi import openapi

handler404 = "saas.lib.http.no_such_page"
handler500 = "saas.lib.http.broken"
urlpatterns = [
    path("healthz", healthz, name="healthz"),
    path("console/", console.urls),
    path("accounts/", include("allauth.urls")),
    path("stripe/", include("billing.stripe_urls")),
    path("v1/openapi.json", openapi, name="openapi"),
    path("v1/", include("modeling.urls")),
    path("v1/", include("billing.api_urls")),
    path("v1/", include("tenants.api_urls")),
    path("", include("tenants.urls")),
    path("", include("billing.urls")),
    path("", include("modeling.page_urls")),
]
