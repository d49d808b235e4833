"""The upload page: a form that works by itself, and the same uploads in parts as /v1 for upload.js."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.http import HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from billing import limits
from modeling.actions import upload_parts, uploading
from modeling.actions.declarations import FIELDS
from modeling.actions.files import add_file, announced_bytes, stored_bytes
from modeling.models import File
from modeling.part_forms import sent_part
from modeling.queries import words
from modeling.queries.upload_pages import unfinished_uploads
from modeling.serializers import uploads as wire
from modeling.uploads import VaultUpload, takes_part, takes_upload, upload_answer
from saas.lib.errors import Refusal
from tenants.access import MemberRequest, member
from tenants.audit import Actor
from tenants.scope import scope

SLICE_BYTES = 16 << 20  # what a lost connection costs at most, for each of the two that are on the way
SLICES_MOST = 9_000  # below the parts that an upload may have


@csrf_exempt  # takes_upload checks the token once the upload handler is in place
@require_http_methods(["GET", "POST"])
@member("member", scoped=False)
@takes_upload
def data_upload(request: MemberRequest) -> HttpResponse:
    """A form whose file streams into the vault at once; with a script, in parts by the calls below."""
    if request.method != "POST":
        with scope(request.tenant):
            taken = stored_bytes(request.tenant) + announced_bytes(request.tenant)
            context = {
                "room_bytes": max(0, limits.ceiling(request.tenant, "storage_bytes") - taken),
                "pack_person": words.person(request.tenant),
                "unfinished": unfinished_uploads(request.tenant),
                "slice_bytes": SLICE_BYTES,
                "slices_most": SLICES_MOST,
            }
            return render(request, "modeling/data_upload.html", context)
    return upload_answer(request, lambda: _added(request))


def _added(request: MemberRequest) -> str:
    upload: Any = request.FILES.get("file")
    if not isinstance(upload, VaultUpload):
        raise Refusal(_("Choose a file first."), param="file", code="no_file")
    with scope(request.tenant):
        file = add_file(
            request.tenant,
            Actor.from_request(request),
            name=upload.name or "file",
            purpose=request.POST.get("purpose", "fine-tune"),
            writer=upload.writer,
            reading=_reading(request),
            personal_data=request.POST.get("personal_data", ""),
        )
    return _place(request, file)


def _reading(request: MemberRequest) -> dict[str, str]:
    """How to read the file, as the form says."""
    return {name: request.POST[name] for name in FIELDS if request.POST.get(name)}


def _place(request: MemberRequest, file: File) -> str:
    return reverse("modeling:data_detail", args=[request.tenant.slug, file.public_id])


def answers_json(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
    """A refusal as JSON, which upload.js shows in its place."""

    @functools.wraps(view)
    def enter(request: Any, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            return view(request, *args, **kwargs)
        except Refusal as refusal:
            return JsonResponse(refusal.body(), status=refusal.status, headers=refusal.headers)

    return enter


@answers_json
@require_POST
@member("member")
def upload_begin(request: MemberRequest) -> HttpResponse:
    """Announce a file: filename, purpose, bytes, part_bytes."""
    wanted = wire.UploadRequest(data=request.POST.dict() | {"mime_type": ""})
    if not wanted.is_valid():
        raise Refusal(
            _("This file cannot be uploaded: it is empty, or its name cannot be read."), param="file"
        )
    asked = wanted.validated_data
    actor = Actor.from_request(request)
    announced = wire.announced(asked)
    upload = uploading.begin(request.tenant, actor, announced, part_bytes=asked.get("part_bytes"))
    return JsonResponse(wire.progress_body(upload, [], None), status=201)


@answers_json
@require_GET
@member("member")
def upload_progress(request: MemberRequest, upload_id: str) -> HttpResponse:
    """What has arrived."""
    upload = uploading.find_upload(request.tenant, upload_id)
    known = upload_parts.known_parts(request.tenant, upload)
    return JsonResponse(wire.progress_body(upload, known, None))


@csrf_exempt  # takes_part checks the token once the upload handler is in place
@answers_json
@require_POST
@member("member", scoped=False)
@takes_part
def upload_part(request: MemberRequest, upload_id: str) -> HttpResponse:
    """One slice: data, part_number, sha256."""
    with scope(request.tenant):
        upload = uploading.find_upload(request.tenant, upload_id)
        part = upload_parts.add_part(request.tenant, upload, sent_part(request))
        return JsonResponse(wire.part_body(upload, part))


@answers_json
@require_POST
@member("member", scoped=False)
def upload_complete(request: MemberRequest, upload_id: str) -> HttpResponse:
    """Make the file of the numbered parts; answers with the address to go on."""
    tenant = request.tenant
    with scope(tenant):
        upload = uploading.find_upload(tenant, upload_id)
        ids = upload_parts.ids_in_order(tenant, upload)
    whole = uploading.Whole(reading=_reading(request), personal_data=request.POST.get("personal_data", ""))
    file = uploading.complete(tenant, Actor.from_request(request), upload, ids, whole)
    return JsonResponse({"location": _place(request, file)})


@require_POST
@member("member")
def upload_cancel(request: MemberRequest, upload_id: str) -> HttpResponse:
    """Give an upload up; what was sent is destroyed."""
    upload = uploading.find_upload(request.tenant, upload_id)
    uploading.cancel(request.tenant, Actor.from_request(request), upload)
    messages.success(request, _("The upload was cancelled. What was sent is destroyed."))
    return redirect("modeling:data_upload", request.tenant.slug)
