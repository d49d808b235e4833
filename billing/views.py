"""Billing pages: plan, standing, usage against limits, ordering; and the door for Stripe's webhooks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from billing import actions, gateway, queries
from billing.plans import PLANS, Plan
from saas.lib.errors import Refusal
from saas.lib.markup import data_size
from tenants.access import MemberRequest, member


@dataclass(frozen=True)
class Meter:
    """One bar of the usage panel."""

    label: str | Promise
    used: float
    limit: float
    text: str
    beyond: str

    @property
    def level(self) -> str:
        """How close to the limit: "", warn from 80 %, bad from 100 %."""
        share = self.used / self.limit if self.limit else 0.0
        return "bad" if share >= 1 else "warn" if share >= 0.8 else ""


def meters_of(plan: Plan, used: dict[str, Any], stored: int) -> list[Meter]:
    """Usage this month beside what the plan includes."""
    counted = [
        (_("Predictions"), "predictions", plan.predictions),
        (_("Tokens"), "tokens", plan.tokens),
        (_("Training seconds"), "training_seconds", plan.training_seconds_included),
    ]
    rows = [
        Meter(
            label,
            float(used[kind]),
            float(top),
            f"{used[kind]:,.0f} / {top:,}",
            f"${10 * plan.price_of(kind):.3f}".rstrip("0").rstrip(".") if plan.price_of(kind) else "",
        )
        for label, kind, top in counted
    ]
    text = f"{data_size(stored)} / {data_size(plan.storage_bytes)}"
    return [*rows, Meter(_("Storage"), float(stored), float(plan.storage_bytes), text, "")]


@member("viewer")
def overview(request: MemberRequest) -> HttpResponse:
    """Plan, standing, usage and the plans on sale."""
    tenant = request.tenant
    plan, standing = queries.account_of(tenant)
    shown = {
        "plan": plan,
        "plans": PLANS.values(),
        "subscription": queries.subscription_of(tenant),
        "standing": str(standing),
        "meters": meters_of(plan, queries.usage_this_month(tenant), actions.stored_bytes(tenant)),
        "month_start": queries.month_start(),
        "days": queries.usage_by_day(tenant),
        "is_standin": settings.STRIPE_IS_STANDIN,
        "is_owner": request.member.role == "owner",
        "just_paid": "paid" in request.GET,
    }
    return render(request, "billing/overview.html", shown)


def _back(request: MemberRequest) -> str:
    return request.build_absolute_uri(reverse("billing:overview", args=[request.tenant.slug]))


@require_POST
@member("owner", scoped=False)
def order(request: MemberRequest) -> HttpResponse:
    """Send the owner to the checkout of the chosen plan."""
    url = actions.order_plan(
        request.tenant, request.user, request.POST.get("plan", ""), return_url=_back(request)
    )
    return HttpResponseRedirect(url)


@require_POST
@member("owner", scoped=False)
def portal(request: MemberRequest) -> HttpResponse:
    """Send the owner to the payment service's own pages."""
    return HttpResponseRedirect(actions.open_portal(request.tenant, return_url=_back(request)))


@csrf_exempt
@require_POST
def webhook(request: HttpRequest) -> HttpResponse:
    """Verify the raw bytes, store the event once, answer; the work happens from the table."""
    try:
        notice = gateway.read_webhook(request.body, request.headers.get("Stripe-Signature", ""))
    except Refusal as refusal:
        return HttpResponse(refusal.message, status=refusal.status, content_type="text/plain")
    actions.store_event(notice)
    return HttpResponse(status=200)
