"""The end of a tenant's payments: the rest of its usage is reported, its subscriptions end with a last invoice."""

from __future__ import annotations

import uuid

from billing import actions, gateway
from billing.models import Subscription
from tenants.scope import scope


def end_payments(tenant_id: uuid.UUID) -> int:
    """Cancel every living subscription of the tenant at Stripe; returns how many. Repeats do no harm.

    Opens the tenant's scope; none is open while Stripe is asked. Raises PaymentUnreachable and PaymentRefused.
    """
    with scope(tenant_id):
        row = Subscription.objects.of(tenant_id).exclude(stripe_customer="").first()
    if row is None:
        return 0
    living = [one for one in gateway.fetch_subscriptions(row.stripe_customer) if one.status in gateway.LIVING]
    if living:
        while actions.report_tenant(row):
            pass
    for one in living:
        gateway.cancel_subscription(one.subscription)
    actions.sync_customer(row.stripe_customer)
    return len(living)
