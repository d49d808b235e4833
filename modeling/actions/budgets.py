"""The lifetime budget of a lineage: raised by an owner who signs in again for it, never below what is spent."""

from __future__ import annotations

import math

from django.utils.translation import gettext as _

from modeling.actions import chain
from modeling.models import PrivacyAccount
from modeling.queries.budget_changes import ACTION
from modeling.queries.privacy import spending_of
from saas.lib.errors import Conflict, Refusal
from tenants import audit
from tenants.audit import Actor
from tenants.models import Tenant

LARGEST = 1000.0


def change_lifetime(
    tenant: Tenant, actor: Actor, account: PrivacyAccount, *, epsilon: float, reason: str
) -> PrivacyAccount:
    """Give a lineage another lifetime epsilon; the caller has checked that an owner has just signed in again.

    Written to the audit log with its reason. Raises Refusal for a number below what is spent or set aside, without a
    reason, or unchanged; Conflict for a lineage without a bound or merged into another.
    """
    chain.lock(tenant)  # nobody reserves while this is decided
    found = PrivacyAccount.objects.of(tenant).select_for_update().get(pk=account.pk)
    if found.no_bound or found.merged_into_id is not None:
        raise Conflict(
            _("No budget protects these people any more, so there is none to raise."), code="no_bound"
        )
    if not reason.strip():
        raise Refusal(_("Say why: the reason is kept in the audit log."), param="reason")
    if not math.isfinite(epsilon) or not 0 < epsilon <= LARGEST:
        raise Refusal(_("A lifetime budget lies above 0, and is at most 1,000."), param="epsilon")
    used = spending_of(tenant, found).used
    if epsilon < used:
        raise Refusal(
            _("%(used).2f is spent or set aside already: the budget cannot be smaller.")
            % {"used": math.ceil(100 * used) / 100},
            param="epsilon",
        )
    if epsilon == found.lifetime_epsilon:
        raise Refusal(_("This is the budget it has."), param="epsilon")
    before, found.lifetime_epsilon = found.lifetime_epsilon, epsilon
    found.save(update_fields=["lifetime_epsilon"])
    audit.record(tenant, actor, ACTION, found, before=before, after=epsilon, reason=reason.strip())
    return found
