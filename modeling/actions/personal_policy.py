"""The policy for personal data in uploads: the vertical's, changed by a tenant's owner, changed again for one file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

from modeling.core.personal_data import ALL_KINDS
from modeling.core.personal_policy import ACTIONS, Policy, PolicyWrong, checked
from modeling.models import PersonalPolicy
from modeling.packs.personal import policy_of
from saas.lib.errors import Refusal
from tenants import audit
from tenants.audit import Actor
from tenants.models import Tenant

COLUMNS_MOST = 200
_FIELDS = ("entities", "columns")


@dataclass(frozen=True)
class InForce:
    """What holds for an upload: the actions, and which columns are looked through (text, all, or more by name)."""

    policy: Policy
    columns: str | tuple[str, ...] = "text"
    is_own: bool = False

    def as_json(self) -> dict[str, Any]:
        """The shape of `personal_data` in the API."""
        columns = self.columns if isinstance(self.columns, str) else list(self.columns)
        return {"entities": dict(self.policy.actions), "columns": columns}


def policy_of_tenant(tenant: Tenant) -> InForce:
    """The tenant's policy, or its vertical's; inside the scope."""
    row = PersonalPolicy.objects.of(tenant).first()
    base = Policy(policy_of(tenant.pack))
    if row is None:
        return InForce(base)
    return InForce(base.changed(row.entities), row.columns, is_own=True)


def policy_of_file(tenant: Tenant, declared: Mapping[str, Any]) -> InForce:
    """The tenant's policy with what one upload declared; where an owner set one, an upload can only be stricter."""
    own = policy_of_tenant(tenant)
    keeps_all = own.is_own and own.columns == "all"
    columns = own.columns if keeps_all else declared.get("columns", own.columns)
    changed = own.policy.changed(declared.get("entities", {}))
    return InForce(
        changed.at_least(own.policy) if own.is_own else changed,
        columns if isinstance(columns, str) else tuple(columns),
        is_own=own.is_own,
    )


def set_policy(tenant: Tenant, actor: Actor, sent: Mapping[str, Any]) -> InForce:
    """Change the kinds and columns that are named; {} brings the vertical's back. Raises Refusal."""
    change = declared_policy(sent)
    if not isinstance(change.get("columns", "text"), str):
        raise Refusal(
            _("columns is text or all; name columns with an upload."), param="columns", code="invalid_value"
        )
    rows = PersonalPolicy.objects.of(tenant)
    if not change:
        rows.all().delete()
        audit.record(tenant, actor, "personal_policy.reset", None)
        return policy_of_tenant(tenant)
    rows.bulk_create([PersonalPolicy(tenant=tenant)], ignore_conflicts=True)
    row = rows.select_for_update().get()
    row.entities = {**row.entities, **change.get("entities", {})}
    row.columns = change.get("columns", row.columns)
    row.changed_by = actor.label[:200]
    row.save(update_fields=["entities", "columns", "changed_by", "changed_at"])
    audit.record(tenant, actor, "personal_policy.changed", None, **row.entities, columns=row.columns)
    return policy_of_tenant(tenant)


def declared_policy(sent: Mapping[str, Any] | str | None) -> dict[str, Any]:
    """{entities, columns} out of a JSON text or object; {} for nothing. Raises Refusal naming what is wrong.

    One action's name stands for all kinds; plain dates are then counted at most.
    """
    if isinstance(sent, str) and sent in ACTIONS:
        return {"entities": dict.fromkeys(ALL_KINDS, sent) | {"date": "off" if sent == "off" else "report"}}
    if isinstance(sent, str) and sent.strip():
        try:
            sent = json.loads(sent)
        except (ValueError, RecursionError):
            raise _wrong(
                _("personal_data is off, report, mask, block, or a JSON object with entities and columns.")
            ) from None
    elif not sent:
        return {}
    if not isinstance(sent, Mapping) or any(name not in _FIELDS for name in sent):
        raise _wrong(
            _("personal_data is off, report, mask, block, or a JSON object with entities and columns.")
        )
    return _checked_parts(sent)


def _checked_parts(sent: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "entities" in sent:
        if not isinstance(sent["entities"], Mapping):
            raise _wrong(_("entities is an object: a kind and what is done with it."))
        try:
            found["entities"] = checked(sent["entities"])
        except PolicyWrong as wrong:
            raise _wrong(wrong.message) from None
    if "columns" in sent:
        columns = sent["columns"]
        is_list = isinstance(columns, list) and len(columns) <= COLUMNS_MOST
        if columns not in ("text", "all") and not (is_list and all(isinstance(one, str) for one in columns)):
            raise _wrong(_("columns is text, all, or a list of column names."))
        found["columns"] = columns
    return found


def _wrong(message: str) -> Refusal:
    return Refusal(message, param="personal_data", code="invalid_value")
