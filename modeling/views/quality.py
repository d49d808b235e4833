"""The quality report of a dataset: for members and owners only; measured again, or against another dataset."""

from __future__ import annotations

from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from modeling.actions import quality
from modeling.actions.dataset_schema import readable_version
from modeling.models import Dataset
from modeling.queries import words
from modeling.queries.quality_pages import quality_page
from saas.lib.errors import Refusal
from tenants.access import MemberRequest, member


@require_http_methods(["GET", "POST"])
@member("member")
def data_quality(request: MemberRequest, public_id: str) -> HttpResponse:
    """The report; POST has it made again, with `compared` naming another dataset."""
    datasets = Dataset.objects.of(request.tenant).filter(deleted_at=None)
    dataset = get_object_or_404(datasets, public_id=public_id)
    version = readable_version(request.tenant, dataset)
    if request.method == "POST":
        asked = request.POST.get("compared", "")
        compared = get_object_or_404(datasets, public_id=asked) if asked else None
        if compared == dataset:
            raise Refusal(_("Compare a dataset with another one."), param="compared", code="same_dataset")
        quality.ask(version, compared=compared)
        return redirect("modeling:data_quality", request.tenant.slug, public_id)
    context = {
        "dataset": dataset,
        "version": version,
        "page": quality_page(request.tenant, dataset, version),
        "people": words.people(request.tenant),
    }
    return render(request, "modeling/quality.html", context)
