"""The playground: classify a text, recommend from a history, chat with streaming."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, cast

from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST

from modeling.actions import trying
from modeling.core.types import Feature
from modeling.models import ModelVersion
from modeling.queries import model_pages
from modeling.queries.table_examples import features_of, fields_of, row_of
from saas.lib.errors import Refusal
from tenants.access import MemberRequest, has_role, member, require_role
from tenants.models import Tenant
from tenants.scope import scope

BASE_CHAT = "smollm2-135m"
MOST_BODY = 1_000_000
_SEPARATORS = re.compile(r"[\s,;]+")


@dataclass(frozen=True)
class Playable:
    """One model in the list of the playground."""

    name: str
    title: str
    task: str
    privacy_off_reason: str = ""
    items: tuple[str, ...] = ()
    features: tuple[Feature, ...] = ()  # the columns of a table model


def _playables(tenant: Tenant) -> list[Playable]:
    """The tenant's models, the newest first, then the base models that answer by themselves."""
    versions = ModelVersion.objects.of(tenant).filter(state=ModelVersion.State.READY).order_by("-pk")[:100]
    own = [
        Playable(
            one.name,
            f"{one.task_words}: {one.title}",
            one.task,
            one.privacy_off_reason,
            tuple(model_pages.known_items(row)),
            features_of(row),
        )
        for row, one in zip(versions, model_pages.model_rows(tenant, list(versions)), strict=True)
    ]
    return [*own, Playable(BASE_CHAT, _("Chat: %(name)s, the base model") % {"name": BASE_CHAT}, "chat")]


@require_http_methods(["GET", "POST"])
@member("viewer", scoped=False)
def playground(request: MemberRequest) -> HttpResponse:
    """Choose a model, try it; POST answers without JavaScript too."""
    with scope(request.tenant):
        models = _playables(request.tenant)
    asked = (request.POST if request.method == "POST" else request.GET).get("model", "")
    chosen = next((one for one in models if one.name == asked), models[0])
    words: dict[str, Any] = {
        "models": models,
        "chosen": chosen,
        "tuned": len(models) > 1,
        "examples": chosen.items,
        "fields": fields_of(chosen.features, {}),
        "can_edit": has_role(request.member, "member"),
    }
    sent: dict[str, Any] = {}
    if request.method == "POST":
        require_role(request.member, "member")
        sent = _sent(request, chosen)
        words |= sent | _answered(request.tenant, chosen, sent)
    words["snippets"] = model_pages.snippets(chosen.name, chosen.task, _sample(request.tenant, chosen, sent))
    with scope(request.tenant):
        return render(request, "modeling/playground.html", words)


def _sent(request: MemberRequest, chosen: Playable) -> dict[str, Any]:
    """What was typed, to be shown again."""
    if chosen.features:
        return {"fields": fields_of(chosen.features, request.POST)}
    if chosen.task == "chat":
        return {"message": request.POST.get("message", "")}
    if chosen.task == "recommendation":
        return {"history": request.POST.get("history", "")}
    return {"text": request.POST.get("text", "")}


def _answered(tenant: Tenant, chosen: Playable, sent: dict[str, Any]) -> dict[str, Any]:
    """The answer, or the refusal's sentence beside the form."""
    try:
        if chosen.task == "chat":
            turns = trying.check_messages([{"role": "user", "content": sent["message"]}])
            answer = trying.chat_once(tenant, trying.chat_target(tenant, chosen.name), turns)
            return {"turns": [*turns, {"role": "assistant", "content": answer}], "message": ""}
        if chosen.task == "recommendation":
            return vars(trying.recommend(tenant, chosen.name, _items(sent["history"])))
        if chosen.features:
            return vars(trying.classify_row(tenant, chosen.name, row_of(sent["fields"])))
        return vars(trying.classify(tenant, chosen.name, sent["text"]))
    except Refusal as refusal:
        return {"refusal": refusal.message}


def _items(text: str) -> list[str]:
    return [item for item in _SEPARATORS.split(text) if item]


def _sample(tenant: Tenant, chosen: Playable, sent: dict[str, Any]) -> dict[str, Any]:
    """The snippet's body: what was typed, so that the call below does the same; otherwise an example."""
    if sent.get("text"):
        return {"inputs": [sent["text"]]}
    if sent.get("fields"):
        return {"inputs": [row_of(sent["fields"])]}
    if sent.get("history"):
        return {"history": _items(sent["history"]), "k": 10}
    return model_pages.sample_body(tenant, chosen.task, chosen.items, chosen.features)


@require_POST
@member("member", scoped=False)
def playground_chat(request: MemberRequest) -> HttpResponse:
    """A chat answer as server-sent events; leaving stops the engine's work."""
    try:
        body = _json(request)
        messages = trying.check_messages(body.get("messages"))
        target = trying.chat_target(request.tenant, str(body.get("model", "")))
    except Refusal as refusal:
        return JsonResponse(refusal.body(), status=refusal.status)
    stream = StreamingHttpResponse(
        trying.chat_events(request.tenant, target, messages), content_type="text/event-stream; charset=utf-8"
    )
    stream["X-Accel-Buffering"] = "no"
    stream["Cache-Control"] = "no-store"
    return cast(HttpResponse, stream)


def _json(request: MemberRequest) -> dict[str, Any]:
    if len(request.body) > MOST_BODY:
        raise Refusal(_("The conversation is too long."), status=413, code="body_too_large")
    try:
        body = json.loads(request.body)
    except (ValueError, RecursionError) as error:
        raise Refusal(_("The request is not JSON."), code="invalid_json") from error
    if not isinstance(body, dict):
        raise Refusal(_("The request is not a JSON object."), code="invalid_json")
    return body
