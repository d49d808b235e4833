"""The privacy page: budgets, the ledger and whether its chain holds, and the export an auditor checks."""

from __future__ import annotations

import json
from dataclasses import dataclass

from django.http import HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from modeling.actions import chain
from modeling.core import canonical
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
        "head": chain.export_head(tenant),
        "can_edit": has_role(request.member, "member"),
        "is_owner": has_role(request.member, "owner"),
    }
    return render(request, "modeling/privacy.html", words)


@require_GET
@member("viewer")
def privacy_export(request: MemberRequest) -> HttpResponse:
    """The whole ledger as one JSON document, to be checked by `python -m modeling.core.verify --ledger`."""
    tenant = request.tenant
    body = chain.exported(tenant)
    answer = HttpResponse(json.dumps(body, ensure_ascii=False, indent=1), content_type="application/json")
    answer["Content-Disposition"] = f'attachment; filename="{tenant.slug}-privacy-ledger.json"'
    return answer


@require_GET
@member("viewer")
def privacy_chain(request: MemberRequest) -> HttpResponse:
    """The chain as JSON lines, oldest first: per entry exactly what its hash covers, and the hash."""
    tenant = request.tenant
    lines = (
        canonical.encode({"hashed": entry["hashed"], "entry_hash": entry["entry_hash"]})
        for entry in chain.exported(tenant)["entries"]
    )
    answer = HttpResponse(b"".join(line + b"\n" for line in lines), content_type="application/x-ndjson")
    answer["Content-Disposition"] = f'attachment; filename="{tenant.slug}-privacy-ledger.jsonl"'
    return answer


@require_GET
@member("viewer")
def privacy_head(request: MemberRequest) -> HttpResponse:
    """The authenticated head of the chain, to be kept outside: it shows later if the tail was cut."""
    tenant = request.tenant
    head = chain.export_head(tenant).body()
    answer = HttpResponse(json.dumps(head, indent=1), content_type="application/json")
    answer["Content-Disposition"] = f'attachment; filename="{tenant.slug}-privacy-head-{head["seq"]}.json"'
    return answer
