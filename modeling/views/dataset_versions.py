"""Pages of dataset versions: ask for the next one, and what differs between two of them."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from modeling.actions import dataset_versions, version_diffs
from modeling.actions.dataset_versions import Asked
from modeling.models import Dataset, DatasetVersion
from modeling.queries import version_pages
from saas.lib.errors import NotFound
from tenants.access import MemberRequest, has_role, member
from tenants.audit import Actor

ROWS_SHOWN = 20


def live_dataset(request: MemberRequest, public_id: str) -> Dataset:
    """The tenant's dataset; 404 for one that was deleted or a stranger's."""
    return get_object_or_404(Dataset.objects.of(request.tenant), public_id=public_id, deleted_at=None)


@require_POST
@member("member")
def version_start(request: MemberRequest, public_id: str) -> HttpResponse:
    """Ask for the next version; its progress stands on the dataset's page."""
    dataset = live_dataset(request, public_id)
    mode = request.POST.get("mode", "")
    names = [line.strip() for line in request.POST.get("units", "").splitlines()]
    asked = Asked(
        mode=mode,
        file=request.POST.get("file", ""),
        units=tuple(name for name in names if name) if mode == DatasetVersion.Mode.REMOVE else (),
        key=request.POST.get("key", ""),
    )
    change = dataset_versions.start(request.tenant, Actor.from_request(request), dataset, asked)
    messages.success(request, _("Version %(n)s is being made.") % {"n": change.number})
    return redirect("modeling:data_detail", request.tenant.slug, public_id)


@require_GET
@member("member")
def version_diff(request: MemberRequest, public_id: str) -> HttpResponse:
    """Rows, people and classes that differ between two versions, and the rows themselves by line."""
    dataset = live_dataset(request, public_id)
    versions = DatasetVersion.objects.of(request.tenant).filter(dataset=dataset).exclude(segments=None)
    numbers = list(versions.order_by("-number").values_list("number", flat=True))
    if len(numbers) < 2:
        raise NotFound(_("There are no two versions to compare."))
    second = _number(request, "to", numbers[0])
    first = _number(request, "from", numbers[1])
    diff = version_diffs.ask(
        request.tenant,
        version_diffs.version_of(request.tenant, dataset, first),
        version_diffs.version_of(request.tenant, dataset, second),
    )
    kind = request.GET.get("kind", "")
    offset = _number(request, "offset", 0)
    found = version_diffs.entries(diff, kind if kind in version_diffs.KINDS else "")
    shown = version_diffs.with_values(diff, found[offset : offset + ROWS_SHOWN])
    query = {"from": first, "to": second} | ({"kind": kind} if kind else {})
    words = {
        "dataset": dataset,
        "diff": diff,
        "counts": diff.found,
        "numbers": numbers,
        "kind": kind,
        "kinds": [
            ("", _("All")),
            ("added", _("Added")),
            ("removed", _("Removed")),
            ("changed", _("Changed")),
        ],
        "classes": version_pages.classes(diff),
        "rows": version_pages.diff_rows(shown),
        "first_url": f"?{urlencode(query)}" if offset else "",
        "next_url": _next(query, offset, len(found)),
        "can_edit": has_role(request.member, "member"),
    }
    return render(request, "modeling/version_diff.html", words)


def _next(query: Mapping[str, object], offset: int, found: int) -> str:
    after = offset + ROWS_SHOWN
    return f"?{urlencode({**query, 'offset': after})}" if found > after else ""


def _number(request: MemberRequest, name: str, default: int) -> int:
    raw = request.GET.get(name, "")
    return int(raw) if raw.isdecimal() and len(raw) < 10 else default
