"""Template context of every page: the tenants that the rail's switcher offers."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

from tenants import queries, vault_keys
from tenants.models import Tenant


def tenancy(request: HttpRequest) -> dict[str, Any]:
    """`rail_tenants` and `key_trouble`, read only when a template asks for them."""
    return {
        "rail_tenants": SimpleLazyObject(lambda: _tenants(request)),
        "key_trouble": SimpleLazyObject(lambda: _key_trouble(request)),
    }


def _key_trouble(request: HttpRequest) -> dict[str, Any]:
    """Why the tenant's own key is not available; {} while all is well, and outside of a tenant's pages."""
    tenant = getattr(request, "tenant", None)
    if tenant is None:
        return {}
    with vault_keys.inside(tenant.pk):
        own = queries.refused_own_key(tenant)
    return {"since": own.refused_at, "why": own.reason, "slug": tenant.slug} if own is not None else {}


def _tenants(request: HttpRequest) -> list[Tenant]:
    user = getattr(request, "user", None)
    return queries.tenants_of(user) if user is not None and user.is_authenticated else []
