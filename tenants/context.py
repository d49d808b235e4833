"""Template context of every page: the tenants that the rail's switcher offers."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

from tenants import queries
from tenants.models import Tenant


def tenancy(request: HttpRequest) -> dict[str, Any]:
    """`rail_tenants`, read only when a template asks for it."""
    return {"rail_tenants": SimpleLazyObject(lambda: _tenants(request))}


def _tenants(request: HttpRequest) -> list[Tenant]:
    user = getattr(request, "user", None)
    return queries.tenants_of(user) if user is not None and user.is_authenticated else []
