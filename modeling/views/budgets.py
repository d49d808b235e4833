"""The page on which an owner changes the lifetime budget of a lineage, signing in again for it."""

from __future__ import annotations

import uuid

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from modeling.actions import budgets
from modeling.forms import BudgetForm
from modeling.models import PrivacyAccount
from modeling.queries import ledger_pages
from saas.lib.errors import Refusal
from tenants.access import MemberRequest, member, signed_in_again
from tenants.audit import Actor


@never_cache
@require_http_methods(["GET", "POST"])
@member("owner")
def budget(request: MemberRequest, account_id: uuid.UUID) -> HttpResponse:
    """Read what is spent, write the new budget, the reason and one's password."""
    live = PrivacyAccount.objects.of(request.tenant).filter(merged_into=None)
    account = get_object_or_404(live, pk=account_id)
    form = BudgetForm(request.POST or None)
    if request.method == "POST" and form.is_valid() and signed_in_again(request, form):
        try:
            budgets.change_lifetime(
                request.tenant,
                Actor.from_request(request),
                account,
                epsilon=form.cleaned_data["epsilon"],
                reason=form.cleaned_data["reason"],
            )
        except Refusal as refusal:
            form.add_error(refusal.param if refusal.param in form.fields else None, str(refusal.message))
        else:
            messages.success(request, _("The lifetime budget was changed, and the audit log says so."))
            return redirect("modeling:privacy", request.tenant.slug)
    words = {
        "form": form,
        "account": ledger_pages.account_card(request.tenant, account),
    }
    return render(request, "modeling/budget.html", words, status=400 if form.errors else 200)
