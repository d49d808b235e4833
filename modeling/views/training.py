"""Pages of training: the list, a new run with its quote, one run with live charts, one-press sample runs."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from modeling.actions import jobs, moves, pausing, quoting
from modeling.actions.resolving_tables import is_table
from modeling.actions.running import MAX_ATTEMPTS
from modeling.actions.specs import JobSpec, PrivacySpec
from modeling.forms import TrainingForm
from modeling.models import DatasetVersion
from modeling.packs import PACKS
from modeling.queries import home, job_pages, quote_panels, training_choices
from modeling.queries.pages import older_page
from modeling.queries.quote_panels import QuotePanel
from modeling.table_forms import TablePanel, table_panel
from saas.lib.errors import NotFound, Refusal
from tenants.access import MemberRequest, has_role, member
from tenants.audit import Actor
from tenants.models import Tenant

USUAL_LEVEL = "8"


@require_GET
@member("viewer")
def training_list(request: MemberRequest) -> HttpResponse:
    """All runs, the newest first."""
    page = older_page(request, job_pages.jobs_of(request.tenant), cursor="public_id")
    rows = job_pages.job_rows(request.tenant, page.rows)
    words = {**page.links, "jobs": rows, "can_edit": has_role(request.member, "member")}
    return render(request, "modeling/training_list.html", words)


@require_http_methods(["GET", "POST"])
@member("member")
def training_new(request: MemberRequest) -> HttpResponse:
    """Choose data, method and epsilon; the quote follows each change, and POST starts the run."""
    versions = training_choices.trainable(request.tenant)
    shelf = training_choices.catalogues(request.tenant)
    version = _wanted(versions, request)
    if version is None:
        return render(request, "modeling/training_new.html", {"form": {"datasets": []}, "can_edit": True})
    table = _table(request, version)
    chosen = training_choices.chosen(request.tenant, version.dataset, table_task=table.task if table else "")
    form = TrainingForm(
        _filled(request, version, shelf),
        datasets=[(one.dataset.public_id, one.dataset.name) for one in versions],
        catalogues=[(one.dataset.public_id, one.dataset.name) for one in shelf],
        methods=[method.value for method in chosen.methods],
    )
    if request.method == "POST" and form.is_valid():
        job = jobs.start(
            request.tenant,
            Actor.from_request(request),
            _spec(request.tenant, form, version, shelf, table),
            user=request.user,
        )
        return redirect("modeling:job_detail", request.tenant.slug, job.public_id)
    quote = _quote(request, form, version, shelf, table)
    words = {"form": form, "chosen": chosen, "quote": quote, "table": table, "can_edit": True}
    return render(
        request, "modeling/training_new.html", words, status=422 if request.method == "POST" else 200
    )


def _wanted(versions: list[DatasetVersion], request: MemberRequest) -> DatasetVersion | None:
    """The version of the asked dataset, or the newest one."""
    asked = (request.POST if request.method == "POST" else request.GET).get("dataset", "")
    found = [one for one in versions if one.dataset.public_id == asked] or versions
    return found[0] if found else None


def _filled(request: MemberRequest, version: DatasetVersion, shelf: list[DatasetVersion]) -> QueryDict:
    """What was sent, with the usual values where nothing was."""
    data = (request.POST if request.method == "POST" else request.GET).copy()
    data["dataset"] = version.dataset.public_id
    data.setdefault("level", USUAL_LEVEL)
    if shelf:
        data.setdefault("catalogue", shelf[0].dataset.public_id)
    return data


def _table(request: MemberRequest, version: DatasetVersion) -> TablePanel | None:
    """The columns of a table to learn from; None for texts, conversations and interactions."""
    if not is_table(JobSpec(training_file=""), version):
        return None
    return table_panel(version, request.POST if request.method == "POST" else request.GET)


def _spec(
    tenant: Tenant,
    form: TrainingForm,
    version: DatasetVersion,
    shelf: list[DatasetVersion],
    table: TablePanel | None,
) -> JobSpec:
    asked = form.cleaned_data.get("catalogue", "")
    catalogue = next((one for one in shelf if one.dataset.public_id == asked), None)
    needs_one = version.dataset.task == "recommendation"
    spec = form.spec(
        training_file=training_choices.file_id(tenant, version),
        catalogue_file=training_choices.file_id(tenant, catalogue) if catalogue and needs_one else "",
    )
    return table.completed(spec) if table else spec


def _quote(
    request: MemberRequest,
    form: TrainingForm,
    version: DatasetVersion,
    shelf: list[DatasetVersion],
    table: TablePanel | None,
) -> QuotePanel:
    if not form.is_valid():
        return QuotePanel(refusal=_("Correct the marked field to see what this run would cost."))
    try:
        asked = quoting.ask(request.tenant, _spec(request.tenant, form, version, shelf, table))
    except Refusal as refusal:
        return QuotePanel(refusal=str(refusal.message))
    try:
        return quote_panels.quote_panel(request.tenant, quoting.body_of(asked))
    except Refusal as refusal:
        if refusal.code not in quoting.TOO_FEW:
            return QuotePanel(refusal=str(refusal.message))
        return quote_panels.advice_panel(request.tenant, quoting.advice_of(asked, refusal))


@require_GET
@member("viewer")
def job_detail(request: MemberRequest, public_id: str) -> HttpResponse:
    """One run; job.js goes on from `last_seq`, and asks for ?part=summary when the state changes."""
    job = get_object_or_404(
        job_pages.jobs_of(request.tenant).select_related("model_version"), public_id=public_id
    )
    words = {
        "job": job_pages.job_page(request.tenant, job),
        "may": {move.value for move in moves.allowed(job)},
        "place": job_pages.place_of(request.tenant, job, max_attempts=MAX_ATTEMPTS),
        "priorities": [(name, words()) for name, words in jobs.PRIORITY_WORDS.items()],
        "model": job.model_version,
        "can_edit": has_role(request.member, "member"),
    }
    if request.GET.get("part") == "summary":
        return render(request, "modeling/job_part.html", words)
    words |= {
        "events": job_pages.told_events(request.tenant, job),
        "charts": job_pages.charts_of(request.tenant, job),
    }
    return render(request, "modeling/training_detail.html", words)


@require_POST
@member("member")
def job_cancel(request: MemberRequest, public_id: str) -> HttpResponse:
    """Stop a run; what was spent stays spent."""
    job = get_object_or_404(job_pages.jobs_of(request.tenant), public_id=public_id)
    jobs.cancel(request.tenant, Actor.from_request(request), job)
    messages.success(request, _("The run is being cancelled."))
    return redirect("modeling:job_detail", request.tenant.slug, public_id)


@require_POST
@member("member")
def job_pause(request: MemberRequest, public_id: str) -> HttpResponse:
    """Let a run wait with its place and its privacy reservation kept."""
    job = get_object_or_404(job_pages.jobs_of(request.tenant), public_id=public_id)
    pausing.pause(request.tenant, Actor.from_request(request), job)
    return redirect("modeling:job_detail", request.tenant.slug, public_id)


@require_POST
@member("member")
def job_resume(request: MemberRequest, public_id: str) -> HttpResponse:
    """Put a paused run back into the queue."""
    job = get_object_or_404(job_pages.jobs_of(request.tenant), public_id=public_id)
    pausing.resume(request.tenant, Actor.from_request(request), job)
    return redirect("modeling:job_detail", request.tenant.slug, public_id)


@require_POST
@member("member")
def job_priority(request: MemberRequest, public_id: str) -> HttpResponse:
    """Order a waiting run among the tenant's own."""
    job = get_object_or_404(job_pages.jobs_of(request.tenant), public_id=public_id)
    jobs.prioritise(request.tenant, Actor.from_request(request), job, request.POST.get("priority", ""))
    return redirect("modeling:job_detail", request.tenant.slug, public_id)


@require_POST
@member("member")
def train_sample(request: MemberRequest) -> HttpResponse:
    """Start a run on sample data at one press, at the vertical's usual epsilon."""
    slug, method = request.POST.get("sample", ""), request.POST.get("method", "auto")
    loaded = home.loaded_samples(request.tenant)
    sample = next((one for one in PACKS[request.tenant.pack].samples if one.slug == slug), None)
    if sample is None or slug not in loaded or (sample.catalogue and sample.catalogue not in loaded):
        raise NotFound(_("This sample is not in your data yet. Add it first."))
    spec = JobSpec(
        training_file=loaded[slug].public_id,
        task=sample.task,
        method=method,
        columns={role: name for role, name in sample.columns.items() if role != "unit"},
        catalogue_file=loaded[sample.catalogue].public_id if sample.catalogue else "",
        privacy=PrivacySpec(epsilon=float(USUAL_LEVEL)),
        suffix="lora" if method == "lora" else "",
    )
    job = jobs.start(request.tenant, Actor.from_request(request), spec, user=request.user)
    return redirect("modeling:job_detail", request.tenant.slug, job.public_id)
