"""Pages of erasing one person: the form that asks twice, what was erased before, and its certificate."""

from __future__ import annotations

from django.contrib import messages
from django.http import Http404, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.utils.translation import ngettext
from django.views.decorators.http import require_GET, require_http_methods

from modeling.actions import erasures
from modeling.actions.dataset_versions import newest_version
from modeling.actions.erasures import Asked
from modeling.forms import require_confirmation
from modeling.queries import words
from modeling.queries.pages import older_page
from modeling.views.dataset_versions import live_dataset
from saas.lib.errors import Refusal
from tenants.access import MemberRequest, member
from tenants.audit import Actor
from tenants.scope import scope


@require_http_methods(["GET", "POST"])
@member("member", scoped=False)
def data_erasures(request: MemberRequest, public_id: str) -> HttpResponse:
    """Erase one person from a dataset, and the list of erasures that reached it."""
    if request.method == "POST":
        try:
            return _erased(request, public_id)
        except Refusal as refusal:
            if refusal.status == 404 and refusal.param is None:
                raise
            return _page(request, public_id, refusal)
    return _page(request, public_id, None)


def _erased(request: MemberRequest, public_id: str) -> HttpResponse:
    with scope(request.tenant):
        dataset = live_dataset(request, public_id)
        require_confirmation(request, dataset.name)
    line = request.POST.get("line", "").strip()
    asked = Asked(
        unit=request.POST.get("unit") or None,
        line=int(line) if line.isdecimal() and len(line) < 16 else None,
        everywhere=request.POST.get("everywhere") == "on",
    )
    erasure = erasures.erase(request.tenant, Actor.from_request(request), dataset, asked)
    found = erasures.totals(erasure)
    messages.success(
        request,
        ngettext(
            "Erased: %(rows)s rows in %(n)s dataset cannot be read any more, in any version or backup.",
            "Erased: %(rows)s rows in %(n)s datasets cannot be read any more, in any version or backup.",
            found["datasets"],
        )
        % {"rows": f"{found['rows']:,}", "n": found["datasets"]},
    )
    return redirect("modeling:data_erasures", request.tenant.slug, public_id)


def _page(request: MemberRequest, public_id: str, refusal: Refusal | None) -> HttpResponse:
    with scope(request.tenant):
        dataset = live_dataset(request, public_id)
        page = older_page(request, erasures.reaching(request.tenant, dataset), cursor="public_id")
        context = {
            **page.links,
            "dataset": dataset,
            "version": newest_version(request.tenant, dataset),
            "erasures": [
                {
                    "row": row,
                    "totals": erasures.totals(row),
                    "later": erasures.later_models(request.tenant, row),
                }
                for row in page.rows
            ],
            "others": erasures.unreached(request.tenant, dataset),
            "person": words.person(request.tenant),
            "refusal": refusal,
            "can_edit": True,
        }
        return render(request, "modeling/erasures.html", context, status=refusal.status if refusal else 200)


@require_GET
@member("member")
def erasure_certificate(request: MemberRequest, public_id: str, erasure_id: str) -> HttpResponse:
    """The signed certificate of one erasure as a file."""
    dataset = live_dataset(request, public_id)
    found = erasures.reaching(request.tenant, dataset).filter(public_id=erasure_id).first()
    if found is None:
        raise Http404
    name = f'attachment; filename="{found.public_id}.json"'
    return JsonResponse(
        found.certificate, headers={"Content-Disposition": name}, json_dumps_params={"indent": 2}
    )
