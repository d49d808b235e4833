"""The page “What is what”: roles of columns, the unit of privacy, sensitive attributes, bounds and categories."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from modeling.actions import dataset_schema
from modeling.models import Dataset
from modeling.queries import words
from modeling.schema_forms import Panel, sent, shown
from tenants.access import MemberRequest, member
from tenants.audit import Actor


@require_http_methods(["GET", "POST"])
@member("member")
def data_columns(request: MemberRequest, public_id: str) -> HttpResponse:
    """One table of all columns, checked as a whole; another unit is confirmed before rows are cut again."""
    dataset = get_object_or_404(Dataset.objects.of(request.tenant), public_id=public_id, deleted_at=None)
    version = dataset_schema.readable_version(request.tenant, dataset)
    if request.method != "POST":
        return _page(request, dataset, shown(dataset, version))
    panel, schema = sent(dataset, version, request.POST)
    if panel.errors:
        return _page(request, dataset, panel, status=422)
    if panel.changes_unit and request.POST.get("confirm_unit") != "1":
        return _page(request, dataset, panel, asks_unit=True, status=422)
    dataset_schema.declare(request.tenant, Actor.from_request(request), dataset, version, schema)
    messages.success(request, _("Saved. Training takes these columns unless a run says otherwise."))
    return redirect("modeling:data_detail", request.tenant.slug, public_id)


def _page(
    request: MemberRequest, dataset: Dataset, panel: Panel, *, asks_unit: bool = False, status: int = 200
) -> HttpResponse:
    context = {
        "dataset": dataset,
        "panel": panel,
        "person": words.person(request.tenant),
        "people": words.people(request.tenant),
        "asks_unit": asks_unit,
        "needs_bounds": any(row.can_declare for row in panel.rows),
    }
    return render(request, "modeling/data_columns.html", context, status=status)
