"""Pages of the audit log: cursor pages with filters, the whole log as JSON lines, the head of the chain."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.http import HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from tenants import audit, queries
from tenants.access import MemberRequest, member
from tenants.audit import Actor
from tenants.forms import AuditFilterForm

ENTRIES_PER_PAGE = 50
ENTRIES_PER_CHECK = 2000  # what one page view verifies; a link verifies all


def _words(details: dict[str, Any]) -> str:
    """Details as people read them: `role: member; scopes: files, predict`."""
    said = {
        name: ", ".join(map(str, value)) if isinstance(value, list) else value
        for name, value in details.items()
    }
    return "; ".join(f"{name}: {value}" for name, value in said.items())


@require_GET
@member("viewer")
def audit_log(request: MemberRequest) -> HttpResponse:
    """Changes, newest first, and whether the chain is whole."""
    form = AuditFilterForm(request.GET)
    filters: dict[str, Any] = form.cleaned_data if form.is_valid() else {}
    rows = queries.audit_entries(request.tenant, filters)
    before = request.GET.get("before", "")
    if before.isdecimal():
        rows = rows.filter(seq__lt=int(before[:18]))
    found = list(rows[: ENTRIES_PER_PAGE + 1])
    entries = found[:ENTRIES_PER_PAGE]
    kept = {name: value for name, value in request.GET.items() if name in form.fields and value}
    older = urlencode(kept | {"before": entries[-1].seq}) if len(found) > ENTRIES_PER_PAGE else ""
    walks_all = "verify" in request.GET
    words = {
        "form": form,
        "entries": [(entry, _words(entry.details)) for entry in entries],
        "actions": queries.audit_actions(request.tenant),
        "verdict": audit.verify(request.tenant, newest_only=0 if walks_all else ENTRIES_PER_CHECK),
        "is_partial": not walks_all and audit.newest(request.tenant).seq > ENTRIES_PER_CHECK,
        "next_url": f"?{older}" if older else "",
        "first_url": f"?{urlencode(kept)}" if before else "",
        "is_filtered": bool(kept),
    }
    return render(request, "tenants/audit.html", words)


@require_GET
@member("viewer")
def audit_export(request: MemberRequest) -> HttpResponse:
    """The whole log, oldest first, one JSON object a line; exporting is itself an entry."""
    audit.record(request.tenant, Actor.from_request(request), "audit.exported", request.tenant)
    response = HttpResponse(audit.export_lines(request.tenant), content_type="application/jsonl")
    response["Content-Disposition"] = f'attachment; filename="audit-{request.tenant.slug}.jsonl"'
    return response


@require_GET
@member("viewer")
def audit_head(request: MemberRequest) -> HttpResponse:
    """The number and hash of the newest entry: kept elsewhere, it later proves that no tail was cut."""
    head = audit.newest(request.tenant)
    content = {"tenant": request.tenant.slug, "seq": head.seq, "hash": head.hash}
    response = JsonResponse(content)
    response["Content-Disposition"] = f'attachment; filename="audit-head-{request.tenant.slug}.json"'
    return response
