"""Pages of personal data: the policy for uploads, which owners change; applying it to a dataset that is there."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from modeling.actions import personal_applying, personal_policy
from modeling.core.personal_data import ALL_KINDS
from modeling.models import Dataset
from modeling.queries import personal_pages
from tenants.access import MemberRequest, has_role, member
from tenants.audit import Actor


@require_GET
@member("member")
def policy_page(request: MemberRequest) -> HttpResponse:
    """What is done with each kind in uploads; only an owner changes it."""
    held = personal_policy.policy_of_tenant(request.tenant)
    context = {
        "rows": personal_pages.policy_rows(request.tenant, held),
        "columns": held.columns,
        "is_own": held.is_own,
        "is_owner": has_role(request.member, "owner"),
    }
    return render(request, "modeling/personal_policy.html", context)


@require_POST
@member("owner")
def policy_change(request: MemberRequest) -> HttpResponse:
    """Keep the posted choices, or bring the vertical's policy back."""
    sent = request.POST
    if "reset" in sent:
        change: dict[str, object] = {}
    else:
        entities = {kind: sent[kind] for kind in ALL_KINDS if kind in sent}
        change = {"entities": entities, "columns": sent.get("columns", "text")}
    personal_policy.set_policy(request.tenant, Actor.from_request(request), change)
    messages.success(request, _("Saved. It holds for every upload from now on."))
    return redirect("modeling:personal_policy", request.tenant.slug)


@require_POST
@member("member")
def policy_apply(request: MemberRequest, public_id: str) -> HttpResponse:
    """Make the next version of a dataset under the policy that holds now; the former versions stay."""
    dataset = get_object_or_404(Dataset.objects.of(request.tenant), public_id=public_id, deleted_at=None)
    personal_applying.start(request.tenant, Actor.from_request(request), dataset)
    messages.success(request, _("The next version is being made under your policy."))
    return redirect("modeling:data_detail", request.tenant.slug, public_id)
