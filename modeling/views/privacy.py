"""The privacy page: budgets, the ledger and whether its chain holds, and the export an auditor checks."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from modeling.actions import chain
from modeling.models import PrivacyEntry
from modeling.queries import ledger_pages
from modeling.queries.pages import older_page
from tenants.access import MemberRequest, has_role, member
from tenants.models import Tenant


@dataclass(frozen=True)
class ChainState:
    """Whether the ledger is the one that was written; the reason when it is not."""

    is_whole: bool
    entries: int
    reason: str = ""


def _chain_state(tenant: Tenant) -> ChainState:
    try:
        return ChainState(True, chain.verify(tenant))
    except chain.ChainBroken as broken:
        return ChainState(False, 0, str(broken))


@require_GET
@member("viewer")
def privacy(request: MemberRequest) -> HttpResponse:
    """Each lineage's budget with its meter, the entries, the chain's state."""
    tenant = request.tenant
    entries = PrivacyEntry.objects.of(tenant).select_related("job")
    page = older_page(request, entries, cursor="seq", order="seq")
    words = {
        **page.links,
        "accounts": ledger_pages.account_cards(tenant),
        "entries": ledger_pages.entry_rows(page.rows),
        "chain": _chain_state(tenant),
        "can_edit": has_role(request.member, "member"),
    }
    return render(request, "modeling/privacy.html", words)


@require_GET
@member("viewer")
def privacy_export(request: MemberRequest) -> HttpResponse:
    """The whole ledger as one JSON document: entries oldest first, and the authenticated head."""
    tenant = request.tenant
    rows = PrivacyEntry.objects.of(tenant).select_related("job", "dataset_version__dataset").order_by("seq")
    body = {
        "object": "privacy.ledger",
        "tenant": tenant.slug,
        "head": asdict(chain.export_head(tenant)),
        "entries": [_exported(entry) for entry in rows],
    }
    answer = HttpResponse(json.dumps(body, ensure_ascii=False, indent=1), content_type="application/json")
    answer["Content-Disposition"] = f'attachment; filename="{tenant.slug}-privacy-ledger.json"'
    return answer


def _exported(entry: PrivacyEntry) -> dict[str, object]:
    return {
        "seq": entry.seq,
        "at": entry.at.isoformat(),
        "kind": entry.kind,
        "job": entry.job.public_id,
        "account": str(entry.account_id),
        "dataset": entry.dataset_version.dataset.public_id if entry.dataset_version else None,
        "partition": entry.partition,
        "mechanism": entry.mechanism,
        "facts": entry.facts,
        "rdp": entry.rdp,
        "epsilon": entry.epsilon,
        "epsilon_replace_one": entry.epsilon_replace_one,
        "previous_hash": entry.previous_hash,
        "entry_hash": entry.entry_hash,
    }
