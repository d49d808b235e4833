"""The owners' page that deletes the whole tenant: what goes, what stays, what to take along, and the way back."""

from __future__ import annotations

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from modeling.actions import holds, tenant_erasure
from modeling.models import Dataset, ModelVersion
from saas.lib.errors import Refusal
from tenants.access import MemberRequest, member, signed_in_again
from tenants.audit import Actor
from tenants.forms import TypedSlugForm
from tenants.models import ApiKey, Member


class EraseForm(TypedSlugForm):
    """The tenant's slug, typed, and the owner's password again."""

    password = forms.CharField(
        label=gettext_lazy("Your password"),
        strip=False,
        widget=forms.PasswordInput(attrs={"class": "input", "autocomplete": "current-password"}),
    )


@never_cache
@require_http_methods(["GET", "POST"])
@member("owner")
def tenant_delete(request: MemberRequest) -> HttpResponse:
    """Read what it means, ask for it, or cancel it."""
    does = request.POST.get("do", "") if request.method == "POST" else ""
    form = EraseForm(request.POST if does == "erase" else None, slug=request.tenant.slug)
    if does == "cancel":
        tenant_erasure.withdraw(request.tenant, Actor.from_request(request))
        messages.success(request, _("The deletion is cancelled. Nothing was deleted."))
        return redirect("modeling:tenant_delete", request.tenant.slug)
    if does == "erase" and form.is_valid() and signed_in_again(request, form):
        try:
            tenant_erasure.request(request.tenant, Actor.from_request(request))
        except Refusal as refusal:
            form.add_error(None, str(refusal.message))
        else:
            return redirect("modeling:tenant_delete", request.tenant.slug)
    return render(request, "tenants/delete.html", _words(request, form), status=400 if form.errors else 200)


def _words(request: MemberRequest, form: EraseForm) -> dict[str, Any]:
    tenant = request.tenant
    return {
        "form": form,
        "asked": tenant_erasure.standing(tenant),
        "hold": holds.standing(tenant).first(),
        "days": settings.TENANT_GRACE_DAYS,
        "datasets": Dataset.objects.of(tenant).filter(deleted_at=None).count(),
        "models": ModelVersion.objects.of(tenant).filter(state=ModelVersion.State.READY).count(),
        "keys": ApiKey.objects.of(tenant).filter(revoked_at=None).count(),
        "members": Member.objects.of(tenant).count(),
    }
