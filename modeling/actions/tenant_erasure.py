"""Asking for a tenant's erasure, and withdrawing it in time: owners on the settings page, operators in the console."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta

from django.conf import settings
from django.core.mail import send_mail
from django.db import transaction
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.translation import gettext as _

from modeling.actions import holds
from saas.lib import background
from saas.lib.errors import Conflict, Refusal
from tenants import audit, vault
from tenants.audit import Actor
from tenants.models import Member, Role, Tenant, TenantErasure
from tenants.scope import scope

logger = logging.getLogger(__name__)
State = TenantErasure.State
OPEN = (State.REQUESTED, State.RUNNING)


def standing(tenant: Tenant) -> TenantErasure | None:
    """The erasure that is asked for or under way; inside the scope."""
    return TenantErasure.objects.of(tenant).filter(state__in=OPEN).first()


def request(tenant: Tenant, actor: Actor, *, reason: str = "", at_once: bool = False) -> TenantErasure:
    """Have the tenant erased after TENANT_GRACE_DAYS, or at once; opens its scope. Owners are told by mail.

    Raises Conflict while a legal hold stands or when it was asked for before, Refusal for an operator without a reason.
    """
    reason = reason.strip()[:300]
    if actor.kind == "operator" and not reason:
        raise Refusal(_("Say why: the tenant's audit log keeps it, and its owners are told."), param="reason")
    with scope(tenant):
        Tenant.objects.select_for_update().get(pk=tenant.pk)  # two owners at once
        holds.require_free(tenant)
        if tenant.state == Tenant.State.ERASED or standing(tenant) is not None:
            raise Conflict(_("The deletion of this tenant was asked for before."), code="erasure_requested")
        due = timezone.now() + timedelta(days=0 if at_once else settings.TENANT_GRACE_DAYS)
        made = TenantErasure.objects.of(tenant).create(
            by_kind=actor.kind, requested_by=actor.label[:200], reason=reason, due_at=due
        )
        Tenant.objects.filter(pk=tenant.pk).update(erase_at=due)
        tenant.erase_at = due
        _record(tenant, actor, "tenant.erasure_requested", due=f"{due:%Y-%m-%dT%H:%MZ}", reason=reason)
        if due <= timezone.now():
            background.enqueue("modeling.erase_tenant", tenant_id=tenant.pk)
        else:
            tell(tenant, owners_of(tenant), "requested", due=due, who=actor.label, reason=reason)
    return made


def withdraw(tenant: Tenant, actor: Actor, *, reason: str = "") -> None:
    """Keep the tenant after all; any owner may, until the erasure begins. Opens its scope. Raises Conflict."""
    with scope(tenant):
        asked = TenantErasure.objects.of(tenant).filter(state=State.REQUESTED)
        if not asked.update(state=State.WITHDRAWN):
            raise Conflict(_("There is no deletion to cancel, or it has begun."), code="no_erasure")
        Tenant.objects.filter(pk=tenant.pk).update(erase_at=None)
        tenant.erase_at = None
        _record(tenant, actor, "tenant.erasure_withdrawn", reason=reason.strip()[:300])
        tell(tenant, owners_of(tenant), "withdrawn", who=actor.label)


def owners_of(tenant: Tenant) -> list[str]:
    """The addresses of the owners; inside the scope."""
    return list(Member.objects.of(tenant).filter(role=Role.OWNER).values_list("user__email", flat=True))


def tell(tenant: Tenant, addresses: Sequence[str], what: str, **words: object) -> None:
    """Mail people what happens to their tenant, after the commit: requested, withdrawn or erased."""
    subjects = {
        "requested": _("%(tenant)s will be deleted from Cloister"),
        "withdrawn": _("%(tenant)s stays on Cloister"),
        "erased": _("%(tenant)s was deleted from Cloister"),
    }
    subject = subjects[what] % {"tenant": tenant.name}
    page = f"{settings.PUBLIC_URL}/t/{tenant.slug}/settings/delete/"
    text = render_to_string(
        "emails/tenant_erasure.txt", {"what": what, "tenant": tenant, "page": page, **words}
    )
    transaction.on_commit(lambda: _mail(subject, text, addresses), robust=True)


def _mail(subject: str, text: str, addresses: Sequence[str]) -> None:
    for address in addresses:  # each for themselves: nobody learns the others' addresses from the mail
        try:
            send_mail(subject, text, None, [address])
        except OSError as error:
            logger.warning("an owner was not told by mail (%s): the page says it", type(error).__name__)


def _record(tenant: Tenant, actor: Actor, action: str, **details: str) -> None:
    """Into the audit log; without the tenant's own key its chain cannot be gone on with, and the row alone tells."""
    try:
        audit.record(tenant, actor, action, tenant, **details)
    except vault.KeysAway:
        logger.warning("%s was not written into the audit log: the tenant's own key is away", action)
