"""A tenant's rules for models that are called by their own name, not through an endpoint."""

from __future__ import annotations

from collections.abc import Mapping

from modeling.actions import predictions
from modeling.actions.endpoints import check_rules
from modeling.models import DefaultRules
from tenants import audit
from tenants.actions import announce_revocation
from tenants.audit import Actor
from tenants.models import Tenant


def default_rules(tenant: Tenant) -> DefaultRules:
    """The rules in force; the zero-retention ones where a tenant never set any."""
    return DefaultRules.objects.of(tenant).first() or DefaultRules(tenant=tenant)


def set_default_rules(
    tenant: Tenant,
    actor: Actor,
    *,
    personal_data: str,
    log_days: int,
    personal_kinds: Mapping[str, str] | None = None,
    delete_predictions: bool = False,
) -> DefaultRules:
    """Change them. Turning the log off deletes what it holds; raises Conflict unless `delete_predictions` agrees."""
    kinds = check_rules(personal_data, log_days, personal_kinds)
    rows = DefaultRules.objects.of(tenant)
    rows.bulk_create([DefaultRules(tenant=tenant)], ignore_conflicts=True)
    rules = rows.select_for_update().get()
    if log_days == 0:
        predictions.delete_kept(tenant, None, agreed=delete_predictions)
    rules.personal_data, rules.log_days = personal_data, log_days
    if kinds is not None:
        rules.personal_kinds = kinds
    said = {"personal_data": personal_data, "personal_kinds": rules.personal_kinds, "log_days": log_days}
    rows.filter(pk=rules.pk).update(**said)
    audit.record(tenant, actor, "prediction_rules.changed", rules, **said)
    announce_revocation("endpoint", tenant, "")
    return rules
