"""May I? Limits of the plan and of a late payment, asked before work starts."""

from __future__ import annotations

from allauth.account.models import EmailAddress
from django.utils.translation import gettext as _

from billing.plans import FREE
from billing.queries import Standing, plan_of, standing_of, usage_this_month
from saas.lib.errors import Refusal
from tenants.models import Member, Role, Tenant, User

COUNTED_BY_MONTH = {"predictions", "tokens", "training_seconds"}


class LimitReached(Refusal):
    """The plan does not include this much; says the limit and what to do."""

    status = 402
    code = "plan_limit"
    kind = "billing_error"


def ceiling(tenant: Tenant, limit: str) -> int:
    """The plan's number for a limit."""
    plan = plan_of(tenant)
    return plan.training_seconds_included if limit == "training_seconds" else int(getattr(plan, limit))


def require(tenant: Tenant, limit: str, amount: float) -> None:
    """Return, or raise LimitReached.

    `running_jobs`, `queued_jobs`, `open_batches`, `storage_bytes`: amount is the total after the work. `predictions`,
    `tokens`, `training_seconds`: amount is what would be added to this month's use. A plan that sells more has no
    ceiling there.
    """
    plan = plan_of(tenant)
    top = ceiling(tenant, limit)
    if limit in COUNTED_BY_MONTH:
        if plan.price_of(limit) > 0:
            return
        amount += float(usage_this_month(tenant)[limit])
    if amount <= top:
        return
    if limit == "storage_bytes":
        raise LimitReached(
            _("Your plan (%(plan)s) stores up to %(top)s MiB. Delete files or move to a larger plan.")
            % {"plan": plan.name, "top": top >> 20},
            status=413,
            code="storage_limit",
        )
    raise LimitReached(_SENTENCES[limit]() % {"plan": plan.name, "top": f"{top:,}"})


_SENTENCES = {
    "running_jobs": lambda: _(
        "Your plan (%(plan)s) runs %(top)s job at a time. Wait for it to end or move to a larger plan."
    ),
    "queued_jobs": lambda: _(
        "Your plan (%(plan)s) holds %(top)s waiting jobs. Cancel one or move to a larger plan."
    ),
    "open_batches": lambda: _(
        "Your plan (%(plan)s) holds %(top)s batches at a time. Wait for one to end or move to a larger plan."
    ),
    "predictions": lambda: _(
        "Your plan (%(plan)s) includes %(top)s predictions a month, and they are used up."
    ),
    "tokens": lambda: _("Your plan (%(plan)s) includes %(top)s tokens a month, and they are used up."),
    "training_seconds": lambda: _(
        "Your plan (%(plan)s) includes %(top)s training seconds a month, and they are used up."
    ),
}


def is_writable(tenant: Tenant) -> bool:
    """Whether the tenant may change things and train. Needs the tenant's scope."""
    return standing_of(tenant) in (Standing.GOOD, Standing.GRACE)


def require_open(tenant: Tenant) -> None:
    """Refuse even predictions while the tenant is suspended. Needs the tenant's scope."""
    if standing_of(tenant) is Standing.SUSPENDED:
        require_writable(tenant)


def require_writable(tenant: Tenant) -> None:
    """Refuse changes while payment is long overdue or the tenant is suspended."""
    standing = standing_of(tenant)
    if standing is Standing.READ_ONLY:
        raise LimitReached(
            _(
                "A payment is overdue, so this account is read-only. Pay the open invoice to go on; "
                "nothing was deleted."
            ),
            code="payment_overdue",
        )
    if standing is Standing.SUSPENDED:
        raise LimitReached(
            _("This account is suspended. Nothing was deleted; please contact us."), code="suspended"
        )


def require_verified_email(tenant: Tenant, user: User | None) -> None:
    """On the Free plan, training needs the person's confirmed e-mail address; keys (None) act for the owners."""
    if plan_of(tenant).code != FREE.code:
        return
    owners = Member.objects.of(tenant).filter(role=Role.OWNER).values_list("user_id", flat=True)
    people = [user.pk] if user is not None else list(owners)
    if not EmailAddress.objects.filter(user_id__in=people, verified=True).exists():
        raise LimitReached(
            _(
                "Confirm your e-mail address by the link we mailed you: on the Free plan, training starts after that."
            ),
            code="email_unverified",
        )
