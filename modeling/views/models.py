"""Pages of models: the list, one model with its card and snippets, deletion."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from modeling.actions import cards, endpoints
from modeling.actions.versions import delete_version
from modeling.forms import require_confirmation
from modeling.models import Endpoint, ModelVersion
from modeling.queries import lineage, model_pages, served
from modeling.queries.pages import older_page
from modeling.queries.recommended import recommended
from modeling.queries.table_examples import features_of
from tenants.access import MemberRequest, has_role, member
from tenants.audit import Actor


@require_GET
@member("viewer")
def model_list(request: MemberRequest) -> HttpResponse:
    """Models that can be called, the newest first."""
    ready = ModelVersion.objects.of(request.tenant).filter(state=ModelVersion.State.READY)
    page = older_page(request, ready)
    rows = model_pages.model_rows(request.tenant, page.rows)
    return render(
        request,
        "modeling/model_list.html",
        {**page.links, "models": rows, "can_edit": has_role(request.member, "member")},
    )


@require_GET
@member("viewer")
def model_detail(request: MemberRequest, short_id: str) -> HttpResponse:
    """One model: how to call it, and its card."""
    versions = ModelVersion.objects.of(request.tenant).select_related("job")
    version = get_object_or_404(versions, short_id=short_id)
    names = list(Endpoint.objects.of(request.tenant).filter(version=version).order_by("created_at"))
    now = timezone.now()
    recent = served.usage(request.tenant, version.name, now - timedelta(days=1), now).total
    words = {
        "recent": recent,
        "recent_p95": recent.quantiles()["p95"],
        "model": model_pages.model_page(request.tenant, version, [one.name for one in names]),
        "card": model_pages.card_page(request.tenant, version),
        "recommended": recommended(request.tenant, version.name)
        if version.task == "recommendation"
        else None,
        "lineage": cards.since(request.tenant, version.job)["lineage"],
        "is_owner": has_role(request.member, "owner"),
        "endpoints": names,
        "data_versions": lineage.of_model(request.tenant, version),
        "snippets": model_pages.snippets(version.name, version.task, _sample(request, version)),
        "can_edit": has_role(request.member, "member"),
    }
    return render(request, "modeling/model_detail.html", words)


def _sample(request: MemberRequest, version: ModelVersion) -> dict[str, Any]:
    items, features = model_pages.known_items(version), features_of(version)
    return model_pages.sample_body(request.tenant, version.task, items, features)


@require_POST
@member("member")
def model_delete(request: MemberRequest, short_id: str) -> HttpResponse:
    """Shred a model's weights after its short id was typed; its endpoints go with it."""
    version = get_object_or_404(ModelVersion.objects.of(request.tenant), short_id=short_id)
    require_confirmation(request, version.short_id)
    actor = Actor.from_request(request)
    for endpoint in Endpoint.objects.of(request.tenant).filter(version=version):
        endpoints.delete(request.tenant, actor, endpoint)
    delete_version(request.tenant, actor, version)
    messages.success(request, _("The model was deleted. Its card and the ledger stay."))
    return redirect("modeling:models", request.tenant.slug)
