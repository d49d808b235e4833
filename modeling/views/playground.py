"""The playground: one model, or up to three of a task side by side; classify, recommend, chat with streaming."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST

from modeling.actions import trying, trying_chat
from modeling.core.types import Feature
from modeling.models import ModelVersion
from modeling.queries import model_pages
from modeling.queries.table_examples import features_of, fields_of, row_of
from saas.lib.errors import Refusal
from saas.lib.markup import epsilon
from tenants.access import MemberRequest, has_role, member, require_role
from tenants.models import Tenant
from tenants.scope import scope

BASE_CHAT = "smollm2-135m"
MOST_BODY = 1_000_000
MOST_PANES = 3
_SEPARATORS = re.compile(r"[\s,;]+")


@dataclass(frozen=True)
class Playable:
    """One model in the list of the playground."""

    name: str
    title: str
    task: str
    privacy: str  # what it learned from people, and how: one line
    privacy_off_reason: str = ""
    epsilon: float | None = None
    items: tuple[str, ...] = ()
    features: tuple[Feature, ...] = ()  # the columns of a table model

    def compares_with(self, other: Playable) -> bool:
        """Whether one input suits both."""
        return self.task == other.task and self.features == other.features


@dataclass
class Pane:
    """A chosen model with its answer, if it was asked: turns of a chat, or results; or why there is none."""

    model: Playable
    turns: list[dict[str, str]] = field(default_factory=list)
    results: Sequence[trying.Scored] = ()
    facts: list[str] = field(default_factory=list)
    advice: str = ""
    refusal: str = ""


def _playables(tenant: Tenant) -> list[Playable]:
    """The tenant's models, the newest first, then the base models that answer by themselves."""
    versions = ModelVersion.objects.of(tenant).filter(state=ModelVersion.State.READY).order_by("-pk")[:100]
    own = [
        Playable(
            one.name,
            f"{one.task_words}: {one.title}",
            one.task,
            _privacy_words(one),
            one.privacy_off_reason,
            one.epsilon,
            tuple(model_pages.known_items(row)),
            features_of(row),
        )
        for row, one in zip(versions, model_pages.model_rows(tenant, list(versions)), strict=True)
    ]
    base = _("Chat: %(name)s, the base model") % {"name": BASE_CHAT}
    return [*own, Playable(BASE_CHAT, base, "chat", _("Base model: no data of yours"))]


def _privacy_words(model: model_pages.ModelPage) -> str:
    if not model.is_private:
        return _("Not private: %(reason)s") % {"reason": model.privacy_off_reason}
    words = {"epsilon": epsilon(model.epsilon), "person": model.person}
    return _("epsilon %(epsilon)s per %(person)s") % words


def _chosen(models: list[Playable], names: list[str]) -> list[Playable]:
    """The models asked for, once each, as far as they compare with the first; the newest when none was."""
    known = {one.name: one for one in models}
    found = [known[name] for name in dict.fromkeys(names) if name in known] or models[:1]
    return [one for one in found if one.compares_with(found[0])][:MOST_PANES]


@require_http_methods(["GET", "POST"])
@member("viewer", scoped=False)
def playground(request: MemberRequest) -> HttpResponse:
    """Choose models, try them on the same input; POST answers without JavaScript too."""
    with scope(request.tenant):
        models = _playables(request.tenant)
    asked = request.POST if request.method == "POST" else request.GET
    chosen = _chosen(models, asked.getlist("model"))
    first = chosen[0]
    others = [one for one in models if one.compares_with(first) and one is not first]
    words: dict[str, Any] = {
        "models": models,
        "chosen": first,
        "panes": [Pane(one) for one in chosen],
        "comparing": chosen[1:],
        "others": others,
        "can_add": len(chosen) < MOST_PANES and len(others) >= len(chosen),
        "tuned": len(models) > 1,
        "examples": first.items,
        "fields": fields_of(first.features, {}),
        "can_edit": has_role(request.member, "member"),
    }
    sent: dict[str, Any] = {}
    if request.method == "POST":
        require_role(request.member, "member")
        sent = _sent(request, first)
        panes = _answered(request.tenant, chosen, sent)
        is_told = first.task == "chat" and not any(pane.refusal for pane in panes)
        words |= sent | {"panes": panes} | ({"message": ""} if is_told else {})
    words["snippets"] = model_pages.snippets(first.name, first.task, _sample(request.tenant, first, sent))
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


def _answered(tenant: Tenant, chosen: list[Playable], sent: dict[str, Any]) -> list[Pane]:
    """Each model's answer, or the refusal's sentence in its place."""
    if chosen[0].task == "chat":
        return _talked(tenant, chosen, sent["message"])
    return [_tried(tenant, one, sent) for one in chosen]


def _talked(tenant: Tenant, chosen: list[Playable], message: str) -> list[Pane]:
    turns = [{"role": "user", "content": message}]
    try:
        checked = trying_chat.check_messages(turns)
        targets = [trying.chat_target(tenant, one.name) for one in chosen]
    except Refusal as refusal:
        return [Pane(one, refusal=refusal.message) for one in chosen]
    panes = []
    told = trying_chat.chat_whole(tenant, targets, checked)
    for model, one in zip(chosen, told, strict=True):
        said = [*turns, {"role": "assistant", "content": one.text}] if one.text else turns
        panes.append(Pane(model, turns=said, facts=one.facts, refusal=one.refusal))
    return panes


def _tried(tenant: Tenant, chosen: Playable, sent: dict[str, Any]) -> Pane:
    try:
        if chosen.task == "recommendation":
            tried = trying.recommend(tenant, chosen.name, _items(sent["history"]))
        elif chosen.features:
            tried = trying.classify_row(tenant, chosen.name, row_of(sent["fields"]))
        else:
            tried = trying.classify(tenant, chosen.name, sent["text"])
    except Refusal as refusal:
        return Pane(chosen, refusal=refusal.message)
    return Pane(chosen, results=tried.results, facts=tried.facts, advice=tried.advice)


def _items(text: str) -> list[str]:
    return [item for item in _SEPARATORS.split(text) if item]


def _sample(tenant: Tenant, chosen: Playable, sent: dict[str, Any]) -> dict[str, Any]:
    """The snippet's body: what was typed, so that the call below does the same; otherwise an example."""
    if sent.get("text"):
        return {"inputs": [sent["text"]]}
    if sent.get("fields"):
        return {"inputs": [row_of(sent["fields"])]}
    if sent.get("message"):
        return {"messages": [{"role": "user", "content": sent["message"]}]}
    if "history" in sent:
        return {"history": _items(sent["history"]), "k": 10}
    return model_pages.sample_body(tenant, chosen.task, chosen.items, chosen.features)


@require_POST
@member("member", scoped=False)
def playground_chat(request: MemberRequest) -> HttpResponse:
    """A chat answer as server-sent events; leaving stops the engine's work."""
    try:
        body = _json(request)
        messages = trying_chat.check_messages(body.get("messages"))
        target = trying.chat_target(request.tenant, str(body.get("model", "")))
    except Refusal as refusal:
        return JsonResponse(refusal.body(), status=refusal.status)
    events = trying_chat.chat_events(request.tenant, target, messages)
    stream = StreamingHttpResponse(events, content_type="text/event-stream; charset=utf-8")
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
