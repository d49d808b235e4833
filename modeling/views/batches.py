"""Pages of batches: the list, a new one from a file, one with its progress, files and errors, cancelling."""

from __future__ import annotations

from typing import cast

from django.conf import settings
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from modeling.actions import batches
from modeling.actions.files import add_file, kept_content
from modeling.models import Batch
from modeling.queries import batch_pages
from modeling.queries.pages import older_page
from modeling.uploads import VaultUpload, takes_upload, upload_answer
from saas.lib.errors import NotFound, Refusal
from saas.lib.streamed import attachment
from tenants.access import MemberRequest, has_role, member
from tenants.audit import Actor
from tenants.scope import scope


@require_GET
@member("viewer")
def batch_list(request: MemberRequest) -> HttpResponse:
    """All batches, the newest first; without any, how to start one."""
    page = older_page(request, batch_pages.batches_of(request.tenant), cursor="public_id")
    rows = [batch_pages.batch_row(one) for one in page.rows]
    words = {
        **page.links,
        "batches": rows,
        "is_any_open": any(row.is_open for row in rows),
        "snippets": batch_pages.snippets(request.tenant, settings.PUBLIC_URL),
        "can_edit": has_role(request.member, "member"),
    }
    return render(request, "modeling/batch_list.html", words)


@csrf_exempt  # takes_upload checks the token once the upload handler is in place
@require_http_methods(["GET", "POST"])
@member("member", scoped=False)
@takes_upload
def batch_new(request: MemberRequest) -> HttpResponse:
    """A file of requests, new or uploaded before, and the call that they make."""
    if request.method != "POST":
        with scope(request.tenant):
            words = {
                "files": batch_pages.request_files(request.tenant),
                "endpoints": batch_pages.endpoint_choices(),
                "line_parts": batch_pages.line_parts(),
                "snippets": batch_pages.snippets(request.tenant, settings.PUBLIC_URL),
            }
            return render(request, "modeling/batch_new.html", words)
    return upload_answer(request, lambda: _started(request))


def _started(request: MemberRequest) -> str:
    """The file and its batch in one transaction, neither is made without the other; the batch's address."""
    upload = request.FILES.get("file")
    actor = Actor.from_request(request)
    with scope(request.tenant):
        file_id = request.POST.get("file_id", "")
        if isinstance(upload, VaultUpload):
            name = upload.name or "requests.jsonl"
            file_id = add_file(
                request.tenant, actor, name=name, purpose="batch", writer=upload.writer
            ).public_id
        if not file_id:
            raise Refusal(_("Choose a file first."), param="file", code="no_file")
        endpoint = request.POST.get("endpoint", "")
        batch = batches.start(request.tenant, actor, file_id=file_id, endpoint=endpoint)
    return reverse("modeling:batch_detail", args=[request.tenant.slug, batch.public_id])


@require_GET
@member("viewer")
def batch_detail(request: MemberRequest, public_id: str) -> HttpResponse:
    """One batch; its page asks for itself again while the batch is open."""
    batch = get_object_or_404(batch_pages.batches_of(request.tenant), public_id=public_id)
    if batch.state not in Batch.OPEN and request.headers.get("HX-Request"):
        return HttpResponse(
            headers={"HX-Refresh": "true"}
        )  # it ended while it was watched: all of the page changes
    words = {"batch": batch_pages.batch_row(batch), "can_edit": has_role(request.member, "member")}
    return render(request, "modeling/batch_detail.html", words)


@require_POST
@member("member")
def batch_cancel(request: MemberRequest, public_id: str) -> HttpResponse:
    """Stop after the lines under way."""
    batch = get_object_or_404(Batch.objects.of(request.tenant), public_id=public_id)
    batches.cancel(request.tenant, Actor.from_request(request), batch)
    messages.success(request, _("The batch stops after the requests under way. Answers so far are kept."))
    return redirect("modeling:batch_detail", request.tenant.slug, public_id)


@require_GET
@member("member", scoped=False)
def batch_file(request: MemberRequest, public_id: str, kind: str) -> HttpResponse:
    """The answers or the errors as JSON lines."""
    with scope(request.tenant):
        batch = get_object_or_404(batch_pages.batches_of(request.tenant), public_id=public_id)
        row = batch_pages.batch_row(batch)
        file = {"output": row.output_file, "error": row.error_file}.get(kind)
        stored = file.object if file is not None else None
        if file is None or stored is None:
            raise NotFound(_("This batch has no such file."))
    content_type = "application/octet-stream"
    answer = attachment(request, kept_content(stored), filename=file.name, content_type=content_type)
    return cast(HttpResponse, answer)  # streamed: views are typed as plain answers
