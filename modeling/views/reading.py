"""Reading a file in another way, and the errors of its rows: in pages, and to take away."""

from __future__ import annotations

from typing import cast
from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from modeling.actions import declarations, rereading
from modeling.models import File
from modeling.queries import data_pages, file_errors
from saas.lib.streamed import attachment
from tenants.access import MemberRequest, member
from tenants.audit import Actor


def _file(request: MemberRequest, public_id: str) -> File:
    files = File.objects.of(request.tenant).select_related("object")
    return get_object_or_404(files, public_id=public_id, deleted_at=None)


@require_POST
@member("member")
def file_read(request: MemberRequest, public_id: str) -> HttpResponse:
    """Have a file read again in the way that the form says; empty fields are guessed."""
    declared = {name: request.POST.get(name, "") for name in declarations.FIELDS}
    rereading.read_again(request.tenant, Actor.from_request(request), _file(request, public_id), declared)
    messages.success(request, _("The file is being read again."))
    return redirect("modeling:data_detail", request.tenant.slug, public_id)


@require_GET
@member("viewer")
def file_error_list(request: MemberRequest, public_id: str) -> HttpResponse:
    """The errors of one file, fifty a page, all or those of one rule."""
    file = _file(request, public_id)
    found = file_errors.errors_of(request.tenant, file)
    rule = request.GET.get("rule", "")
    listed = found.of_rule(rule)
    start = _number(request.GET.get("after", ""))
    shown = [one for one in listed if one.number > start][: file_errors.PAGE_SIZE]
    here = reverse("modeling:file_errors", args=[request.tenant.slug, public_id])
    more = bool(shown) and shown[-1].number < listed[-1].number
    context = {
        "file": file,
        "dataset": data_pages.dataset_of_file(request.tenant, file),
        "found": found,
        "rule": rule,
        "errors": shown,
        "first_url": _address(here, rule=rule) if start else "",
        "next_url": _address(here, rule=rule, after=shown[-1].number) if more else "",
        "listed": len(listed),
    }
    return render(request, "modeling/file_errors.html", context)


@require_GET
@member("viewer")
def file_error_download(request: MemberRequest, public_id: str, kind: str) -> HttpResponse:
    """The listed errors as CSV or JSON."""
    file = _file(request, public_id)
    found = file_errors.errors_of(request.tenant, file)
    listed = found.of_rule(request.GET.get("rule", ""))
    chunks = file_errors.as_csv(listed) if kind == "csv" else file_errors.as_json(found, listed)
    content_type = "text/csv" if kind == "csv" else "application/json"
    answer = attachment(request, chunks, filename=f"{file.name}.errors.{kind}", content_type=content_type)
    return cast(HttpResponse, answer)  # streamed: views are typed as plain answers


def _number(value: str) -> int:
    return int(value) if value.isdecimal() and len(value) < 9 else 0


def _address(place: str, **asked: object) -> str:
    said = {name: value for name, value in asked.items() if value}
    return f"{place}?{urlencode(said)}" if said else place
