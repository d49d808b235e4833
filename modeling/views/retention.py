"""The page of retention: how long each class of data is kept, what is stored, and legal holds."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_GET, require_POST

from billing import limits
from modeling.actions import holds, retention
from modeling.actions.files import stored_bytes
from modeling.models import Dataset, File, LegalHold, RetentionRule
from saas.lib.errors import Refusal
from tenants.access import MemberRequest, has_role, member
from tenants.audit import Actor
from tenants.models import Tenant

RELEASED_SHOWN = 20


class HoldForm(forms.Form):
    """What is held ("" = everything) and why."""

    covers = forms.ChoiceField(label=gettext_lazy("What is held"), required=False)
    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        max_length=holds.REASON_CHARACTERS,
        help_text=gettext_lazy("For example the number of the case. Kept in the audit log."),
        widget=forms.TextInput(attrs={"class": "input"}),
    )

    def __init__(self, *arguments: Any, tenant: Tenant, **options: Any) -> None:
        super().__init__(*arguments, **options)
        field = self.fields["covers"]
        assert isinstance(field, forms.ChoiceField)
        datasets = Dataset.objects.of(tenant).filter(deleted_at=None).order_by("-id")
        batches = File.objects.of(tenant).filter(purpose__in=File.KEPT_AS_IS, deleted_at=None)
        field.choices = [
            ("", _("All data of this tenant")),
            *((one.public_id, one.name) for one in datasets),
            *((one.public_id, one.name) for one in batches.order_by("-id")),
        ]


@require_GET
@member("member")
def retention_page(request: MemberRequest) -> HttpResponse:
    """Rules, storage and holds; only an owner changes them."""
    return _page(request, HoldForm(tenant=request.tenant))


def _page(request: MemberRequest, form: HoldForm, *, refusal: Refusal | None = None) -> HttpResponse:
    set_days = retention.rules(request.tenant)
    refused = request.POST.get("kind", "") if refusal is not None else ""
    rules = [
        {
            "kind": kind,
            "label": label,
            "days": request.POST.get("days", "") if kind == refused else set_days.get(kind, ""),
            "error": refusal.message if refusal is not None and kind == refused else "",
            "must_agree": refusal is not None and kind == refused and refusal.param == "agreed",
        }
        for kind, label in RetentionRule.Kind.choices
    ]
    most = limits.ceiling(request.tenant, "storage_bytes")
    past = LegalHold.objects.of(request.tenant).exclude(released_at=None).select_related("file", "dataset")
    context = {
        "rules": rules,
        "form": form,
        "holds": list(holds.standing(request.tenant)),
        "released": list(past.order_by("-released_at")[:RELEASED_SHOWN]),
        "stored": stored_bytes(request.tenant),
        "most": most,
        "is_owner": has_role(request.member, "owner"),
    }
    is_wrong = refusal is not None or bool(form.errors)
    return render(request, "modeling/retention.html", context, status=400 if is_wrong else 200)


@require_POST
@member("owner")
def rule(request: MemberRequest) -> HttpResponse:
    """Change one rule; an empty field removes it."""
    try:
        retention.set_rule(
            request.tenant,
            Actor.from_request(request),
            request.POST.get("kind", ""),
            _days(request),
            agreed=request.POST.get("agreed") == "on",
        )
    except Refusal as refusal:
        if refusal.param == "kind":
            raise
        return _page(request, HoldForm(tenant=request.tenant), refusal=refusal)
    messages.success(request, _("Saved. The rules are applied every hour."))
    return redirect("modeling:retention", request.tenant.slug)


def _days(request: HttpRequest) -> int | None:
    text = request.POST.get("days", "").strip()
    if not text:
        return None
    if not text.isdecimal() or len(text) > 6:
        raise Refusal(_("Write a whole number of days, or nothing to keep them."), param="days")
    return int(text)


@require_POST
@member("owner")
def hold_place(request: MemberRequest) -> HttpResponse:
    """Hold everything, a dataset or a file."""
    form = HoldForm(request.POST, tenant=request.tenant)
    if not form.is_valid():
        return _page(request, form)
    covers = form.cleaned_data["covers"]
    dataset = Dataset.objects.of(request.tenant).filter(public_id=covers).first() if covers else None
    file = File.objects.of(request.tenant).filter(public_id=covers).first() if covers else None
    actor = Actor.from_request(request)
    holds.place(request.tenant, actor, reason=form.cleaned_data["reason"], file=file, dataset=dataset)
    messages.success(request, _("Held. Nothing of it is deleted until an owner releases it."))
    return redirect("modeling:retention", request.tenant.slug)


@require_POST
@member("owner")
def hold_release(request: MemberRequest, hold_id: str) -> HttpResponse:
    """Release a hold, with a reason."""
    hold = get_object_or_404(LegalHold.objects.of(request.tenant), public_id=hold_id)
    holds.release(request.tenant, Actor.from_request(request), hold, reason=request.POST.get("reason", ""))
    messages.success(request, _("Released. What is past its time goes within the hour."))
    return redirect("modeling:retention", request.tenant.slug)
