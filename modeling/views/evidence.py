"""What proves a model: its card as a file, its receipt, the whole model to take away, and proofs about one person."""

from __future__ import annotations

import json
from typing import Any, cast

from django.http import HttpResponse
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from modeling.actions import cards, commitments, downloads
from modeling.models import ModelVersion
from modeling.queries.card_markdown import markdown
from saas.lib.errors import NotFound, Refusal
from saas.lib.streamed import attachment
from tenants import audit
from tenants.access import MemberRequest, member
from tenants.audit import Actor
from tenants.scope import scope


def _version(request: MemberRequest, short_id: str) -> ModelVersion:
    versions = ModelVersion.objects.of(request.tenant).select_related("job")
    return get_object_or_404(versions, short_id=short_id)


def _file(content: str, *, name: str, content_type: str) -> HttpResponse:
    answer = HttpResponse(content, content_type=content_type)
    answer["Content-Disposition"] = f'attachment; filename="{name}"'
    return answer


def _json_file(value: Any, *, name: str) -> HttpResponse:
    text = json.dumps(value, ensure_ascii=False, indent=1) + "\n"
    return _file(text, name=name, content_type="application/json")


@require_GET
@member("viewer")
def card_json(request: MemberRequest, short_id: str) -> HttpResponse:
    """The card as it was signed, with what came after it under `since`."""
    version = _version(request, short_id)
    card = version.card | {"since": cards.since(request.tenant, version.job)}
    return _json_file(card, name=f"{short_id}-card.json")


@require_GET
@member("viewer")
def card_markdown(request: MemberRequest, short_id: str) -> HttpResponse:
    """The card as Markdown."""
    version = _version(request, short_id)
    text = markdown(version.card | {"since": cards.since(request.tenant, version.job)})
    return _file(text, name=f"{short_id}-card.md", content_type="text/markdown; charset=utf-8")


@require_GET
@member("viewer")
def receipt(request: MemberRequest, short_id: str) -> HttpResponse:
    """The signed receipt."""
    version = _version(request, short_id)
    if version.receipt is None:
        raise NotFound(_("This model was made before receipts were."), code="no_receipt")
    return _json_file(version.receipt, name=f"{short_id}-receipt.json")


@require_POST
@member("member")
def model_download(request: MemberRequest, short_id: str) -> HttpResponse:
    """The whole model as an archive; a POST, since it leaves a line in the audit log."""
    actor = Actor.from_request(request)
    made = downloads.download(
        request.tenant, actor, _version(request, short_id), with_base=bool(request.POST.get("with_base"))
    )
    answer = attachment(request, made.chunks, filename=made.filename, content_type="application/zip")
    return cast(HttpResponse, answer)  # streamed: views are typed as plain answers


@require_POST
@member("owner", scoped=False)
def proof(request: MemberRequest, short_id: str) -> HttpResponse:
    """Proof that one person's rows are among those that the receipt commits to; it shows these rows in the clear."""
    with scope(request.tenant):
        version = _version(request, short_id)
    person = request.POST.get("person", "").strip()
    if not person:
        raise Refusal(_("Write how the data name the person."), param="person")
    made = commitments.prove(request.tenant, version, person)
    with scope(request.tenant):
        audit.record(request.tenant, Actor.from_request(request), "model.proof", version)
    return _json_file(made, name=f"{short_id}-proof.json")
