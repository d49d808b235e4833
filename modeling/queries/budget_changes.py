"""Every change of a lineage's lifetime budget, from the audit log."""

from __future__ import annotations

from typing import Any

from modeling.models import PrivacyAccount
from tenants.models import AuditEntry, Tenant

ACTION = "privacy.budget_changed"


def changes(tenant: Tenant, account: PrivacyAccount) -> list[dict[str, Any]]:
    """Oldest first: when, by whom, from, to, why; of the account and of those merged into it."""
    merged = PrivacyAccount.objects.of(tenant).filter(merged_into=account.pk).values_list("pk", flat=True)
    ids = [str(one) for one in (account.pk, *merged)]
    rows = AuditEntry.objects.of(tenant).filter(action=ACTION, object_id__in=ids).order_by("seq")
    return [
        {
            "at": row.at.isoformat(),
            "by": row.actor,
            "from": row.details["before"],
            "to": row.details["after"],
            "reason": row.details["reason"],
        }
        for row in rows
    ]
