"""Pages of the prediction log, for owners: the entries, the whole log as JSON lines, the rules of own names."""

from __future__ import annotations

from typing import cast

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

from modeling.actions import default_rules, endpoints, predictions
from modeling.endpoint_forms import checked_rules
from modeling.models import Endpoint
from modeling.queries import endpoint_pages
from modeling.queries.pages import older_page
from saas.lib.streamed import attachment
from tenants.access import MemberRequest, member
from tenants.audit import Actor
from tenants.models import Tenant


def _endpoint(request: MemberRequest, name: str) -> Endpoint | None:
    return endpoints.find(request.tenant, name) if name else None


def _rules_url(tenant: Tenant, endpoint: Endpoint | None) -> str:
    """Where the log is turned on and off."""
    if endpoint is None:
        return reverse("modeling:endpoints", args=[tenant.slug]) + "#own-names"
    return reverse("modeling:endpoint_detail", args=[tenant.slug, endpoint.name]) + "#texts"


@never_cache
@require_GET
@member("owner")
def prediction_list(request: MemberRequest, name: str = "") -> HttpResponse:
    """What an endpoint answered, or the models that are called by their own name; newest first."""
    endpoint = _endpoint(request, name)
    page = older_page(request, predictions.kept(request.tenant, endpoint), cursor="public_id")
    rules = endpoint or default_rules.default_rules(request.tenant)
    words = {
        **page.links,
        "endpoint": endpoint,
        "rows": endpoint_pages.logged_rows(predictions.opened(page.rows)),
        "log_days": rules.log_days,
        "rules_url": _rules_url(request.tenant, endpoint),
    }
    return render(request, "modeling/prediction_list.html", words)


@never_cache
@require_GET
@member("owner")
def prediction_export(request: MemberRequest, name: str = "") -> HttpResponse:
    """The whole log; that it was taken out is in the audit log."""
    endpoint = _endpoint(request, name)
    chunks = predictions.exported(request.tenant, Actor.from_request(request), endpoint)
    filename = f"predictions-{endpoint.name if endpoint else 'models'}.jsonl"
    made = attachment(request, chunks, filename=filename, content_type="application/jsonl")
    return cast(HttpResponse, made)


@require_POST
@member("owner")
def own_name_rules(request: MemberRequest) -> HttpResponse:
    """Change the rules of models that are called by their own name."""
    default_rules.set_default_rules(
        request.tenant, Actor.from_request(request), **checked_rules(request.POST)
    )
    messages.success(request, _("The rules hold from the next request on."))
    return redirect("modeling:endpoints", request.tenant.slug)
