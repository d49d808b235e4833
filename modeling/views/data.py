"""Pages of data: the list, one file or dataset, samples, the unit of privacy, deletion."""

from __future__ import annotations

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from modeling.actions.files import delete_dataset, delete_file
from modeling.actions.samples import add_samples
from modeling.forms import require_confirmation
from modeling.models import Dataset, File
from modeling.packs import PACKS
from modeling.queries import data_pages, home, personal_pages, quality_pages, readings, version_pages
from modeling.queries.few_rows import few_rows
from saas.lib.errors import NotFound
from tenants.access import MemberRequest, has_role, member
from tenants.audit import Actor
from tenants.scope import scope


@require_GET
@member("viewer")
def data_list(request: MemberRequest) -> HttpResponse:
    """Datasets, files that are still checked or were refused, and samples to begin with."""
    can_edit = has_role(request.member, "member")
    words_ = {
        "datasets": data_pages.datasets_of(request.tenant),
        "files": data_pages.unready_files(request.tenant),
        "offers": home.sample_offers(request.tenant) if can_edit else [],
        "can_edit": can_edit,
    }
    return render(request, "modeling/data_list.html", words_)


@require_POST
@member("member", scoped=False)
def add_sample(request: MemberRequest) -> HttpResponse:
    """Put a sample of the vertical, and the catalogue it needs, into the tenant's data."""
    samples = {one.slug: one for one in PACKS[request.tenant.pack].samples}
    wanted = samples.get(request.POST.get("sample", ""))
    if wanted is None:
        raise NotFound(_("There is no such sample."))
    with scope(request.tenant):
        loaded = home.loaded_samples(request.tenant)
    needed = [samples.get(wanted.catalogue), wanted]
    missing = [one for one in needed if one is not None and one.slug not in loaded]
    add_samples(request.tenant, Actor.from_request(request), missing)
    messages.success(request, _("The sample is being checked. In a few seconds it can be trained on."))
    return redirect("modeling:data", request.tenant.slug)


@require_GET
@member("viewer")
def data_detail(request: MemberRequest, public_id: str) -> HttpResponse:
    """One dataset; or one file until it has become a dataset."""
    if public_id.startswith("file-"):
        return _file_detail(request, public_id)
    datasets = Dataset.objects.of(request.tenant).select_related("account")
    dataset = get_object_or_404(datasets, public_id=public_id, deleted_at=None)
    version = data_pages.newest_version(request.tenant, dataset)
    if version is None:
        raise Http404
    can_edit = has_role(request.member, "member")
    context = {
        "dataset": dataset,
        "version": version,
        "quality": quality_pages.summary(version) if can_edit else None,
        "personal": personal_pages.findings_of(version) if can_edit else None,
        "few": few_rows(version) if can_edit and "rows" in request.GET else None,
        "reading": readings.reading_of_dataset(request.tenant, dataset, version),
        "page": data_pages.dataset_page(request.tenant, dataset, version),
        "chain": version_pages.chain(request.tenant, dataset, version),
        "can_edit": can_edit,
    }
    return render(request, "modeling/data_detail.html", context)


def _file_detail(request: MemberRequest, public_id: str) -> HttpResponse:
    file = get_object_or_404(File.objects.of(request.tenant), public_id=public_id, deleted_at=None)
    dataset = (
        data_pages.dataset_of_file(request.tenant, file) if file.status == File.Status.PROCESSED else None
    )
    if dataset is not None:
        place = reverse("modeling:data_detail", args=[request.tenant.slug, dataset.public_id])
        # htmx would swap a redirect's page into this one: tell it to go there instead.
        return (
            HttpResponse(headers={"HX-Redirect": place})
            if request.headers.get("HX-Request")
            else redirect(place)
        )
    context = {
        "file": file,
        "inspection": data_pages.inspection_of(request.tenant, file),
        "errors": file.errors[: data_pages.ERRORS_SHOWN],
        "error_count": sum(file.errors_by_rule.values()) or len(file.errors),
        "reading": readings.reading_of_refused(request.tenant, file),
        "can_edit": has_role(request.member, "member"),
    }
    return render(request, "modeling/file_detail.html", context)


@require_POST
@member("member")
def data_delete(request: MemberRequest, public_id: str) -> HttpResponse:
    """Destroy the keys of a dataset or file after its name was typed."""
    actor = Actor.from_request(request)
    if public_id.startswith("file-"):
        file = get_object_or_404(File.objects.of(request.tenant), public_id=public_id, deleted_at=None)
        require_confirmation(request, file.name)
        delete_file(file, actor)
    else:
        dataset = get_object_or_404(Dataset.objects.of(request.tenant), public_id=public_id, deleted_at=None)
        require_confirmation(request, dataset.name)
        delete_dataset(request.tenant, actor, dataset)
    messages.success(request, _("Deleted. The keys are destroyed."))
    return redirect("modeling:data", request.tenant.slug)
