"""What a call from the playground took and cost: noted like a request of the gateway, and said in words."""

from __future__ import annotations

import time

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from billing.actions import record_usage
from billing.plans import Plan
from billing.queries import plan_of
from modeling.serving.gateway_metrics import Seen
from modeling.serving.gateway_served import served_once
from modeling.serving.targets import Target
from saas.lib.markup import milliseconds, small_money
from tenants.models import Tenant
from tenants.scope import scope

ROUTE = "playground"
ANSWERED = 200


def begin(tenant: Tenant, target: Target) -> Seen:
    """Start the clock of one call."""
    seen = Seen()
    seen.meets(tenant, target)
    return seen


def finish(tenant: Tenant, seen: Seen, request_id: str) -> list[str]:
    """Count what was used, once, for the bill and for the model's page; returns it in words. Opens its own scope."""
    seconds = time.perf_counter() - seen.started
    seen.status = ANSWERED
    tokens = 0 if seen.predictions else seen.tokens_in + seen.tokens_out
    with scope(tenant):
        record_usage(tenant, "predictions", seen.predictions, request_id)
        record_usage(tenant, "tokens", tokens, request_id)
        served_once(tenant, ROUTE, seen, seconds)
        plan = plan_of(tenant)
    return _facts(seen, seconds, plan)


def _facts(seen: Seen, seconds: float, plan: Plan) -> list[str]:
    found = []
    if seen.first_token:
        found.append(_("first token after %(time)s") % {"time": milliseconds(seen.first_token)})
    found.append(_("%(time)s in all") % {"time": milliseconds(seconds)})
    if seen.predictions:
        words = ngettext("%(n)d prediction", "%(n)d predictions", seen.predictions)
        return [*found, words % {"n": seen.predictions}, _price(plan, "predictions", seen.predictions)]
    counts = {"read": f"{seen.tokens_in:,}", "written": f"{seen.tokens_out:,}"}
    found.append(_("%(read)s tokens read, %(written)s written") % counts)
    return [*found, _price(plan, "tokens", seen.tokens_in + seen.tokens_out)]


def _price(plan: Plan, kind: str, amount: int) -> str:
    price = plan.price_of(kind)
    return small_money(price * amount) if price else _("included in %(plan)s") % {"plan": plan.name}
