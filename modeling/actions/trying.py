"""The playground's calls: a signed-in member asks the engine as a program would, and it counts as usage."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from asgiref.sync import async_to_sync
from django.utils.translation import gettext as _

from billing import limits
from modeling.actions import trying_facts
from modeling.core.recommend_scores import POPULAR
from modeling.serving.engines import ask_engines
from modeling.serving.gateway_call import refused
from modeling.serving.gateway_screen import under_rule
from modeling.serving.targets import Target, require_task, serving_route, serving_target
from modeling.serving.wire import EngineRefusal
from saas.lib.errors import Refusal
from tenants.models import Tenant
from tenants.scope import scope

SECONDS = 30.0
MOST_CHARACTERS = 20_000
MOST_ITEMS = 500


@dataclass(frozen=True)
class Scored:
    """One line of an answer: a label or item, its share 0..1 for the bar, and the number as printed."""

    name: str
    share: float
    words: str


@dataclass(frozen=True)
class Tried:
    """An answer, with what it took and cost in words."""

    results: list[Scored]
    facts: list[str] = field(default_factory=list)
    advice: str = ""  # what the model's calibration suggests about this answer


def request_id() -> str:
    """A fresh id of a call from the playground."""
    return f"play_{secrets.token_hex(16)}"


def target_of(tenant: Tenant, model: str, task: str, kind: str) -> Target:
    """The model, once the plan allows one more call; raises Refusal."""
    with scope(tenant):
        limits.require_open(tenant)
        limits.require(tenant, kind, 1)
    return require_task(serving_target(tenant.pk, model), task)


def _under_rule(tenant: Tenant, target: Target, texts: list[str], names: list[str]) -> list[str]:
    """The texts as the model may see them, by the rule for calls by its own name; raises Refusal `personal_data`."""
    policy = serving_route(tenant.pk, target.model).rules.policy
    return list(async_to_sync(under_rule)(policy, texts, lambda at: names[at], tenant=str(tenant.pk)).texts)


def _ask(tenant: Tenant, op: str, target: Target, **body: Any) -> tuple[dict[str, Any], list[str]]:
    seen = trying_facts.begin(tenant, target)
    try:
        found = async_to_sync(ask_engines)(
            op, tenant=str(tenant.pk), seconds=SECONDS, **target.body(), **body
        )
    except EngineRefusal as refusal:
        raise refused(refusal) from refusal
    seen.bill("predictions", 1, int(found.get("tokens", 0)))
    return found, trying_facts.finish(tenant, seen, request_id())


def classify(tenant: Tenant, model: str, text: str) -> Tried:
    """The five likeliest labels of a text; raises Refusal. Opens its own scopes."""
    text = text.strip()[:MOST_CHARACTERS]
    if not text:
        raise Refusal(_("Write a text first."), param="text")
    target = target_of(tenant, model, "classification", "predictions")
    texts = _under_rule(tenant, target, [text], ["text"])
    found, facts = _ask(tenant, "classify", target, inputs=texts, top_k=5)
    scored = [Scored(name, value, f"{100 * value:.1f} %") for name, value in found["results"][0]]
    return Tried(scored, facts, _advice(found))


def classify_row(tenant: Tenant, model: str, cells: dict[str, Any]) -> Tried:
    """The labels of one row of a table, or its number; raises Refusal. Opens its own scopes."""
    target = target_of(tenant, model, "classification", "predictions")
    written = {name: cell for name, cell in cells.items() if isinstance(cell, str)}
    shown = _under_rule(tenant, target, list(written.values()), list(written))
    rows = [cells | dict(zip(written, shown, strict=True))]
    found, facts = _ask(tenant, "classify", target, rows=rows, top_k=5)
    if "values" not in found:
        scored = [Scored(name, value, f"{100 * value:.1f} %") for name, value in found["results"][0]]
        return Tried(scored, facts, _advice(found))
    answer = found["values"][0]
    named = {"value": _("Value"), "low": _("Nine in ten above"), "high": _("Nine in ten below")}
    return Tried(
        [Scored(words, 0.0, f"{answer[name]:,.4g}") for name, words in named.items() if name in answer], facts
    )


def _advice(found: dict[str, Any]) -> str:
    """Which labels hold, for a model of several; and what its suggested threshold says about the best one."""
    said = []
    if "assigned" in found:
        assigned = found["assigned"][0]
        said.append(
            _("Labels that hold: %(names)s.") % {"names": ", ".join(assigned)}
            if assigned
            else _("No label holds.")
        )
    threshold = found.get("abstain_below")
    if threshold is not None:
        words = {"threshold": f"{100 * threshold:.0f}"}
        said.append(
            _("Less sure than %(threshold)s %%: the model's calibration suggests to leave this to a person.")
            % words
            if found["results"][0][0][1] < threshold
            else _("Surer than %(threshold)s %%, from where its calibration suggests to trust the model.")
            % words
        )
    return " ".join(said)


def recommend(tenant: Tenant, model: str, history: Sequence[str]) -> Tried:
    """Ten items for a history of item ids; raises Refusal. Opens its own scopes."""
    target = target_of(tenant, model, "recommendation", "predictions")
    found, facts = _ask(tenant, "recommend", target, history=list(history[:MOST_ITEMS]), k=10)
    scores = [float(score) for _item, score in found["items"]]
    low, high = min(scores, default=0.0), max(scores, default=1.0)
    width = (high - low) or 1.0
    rows = [
        Scored(str(item), 0.1 + 0.9 * (float(score) - low) / width, f"{float(score):.2f}")
        for item, score in found["items"]
    ]
    if found["basis"] != POPULAR:
        return Tried(rows, facts, "")
    if not history:
        return Tried(rows, facts, _("Nothing is known of this person: this is what most people choose."))
    unknown = _("The model's catalogue knows none of these items: this is what most people choose.")
    return Tried(rows, facts, unknown)


def chat_target(tenant: Tenant, model: str) -> Target:
    """The chat model, once the plan allows it; raises Refusal. Opens its own scopes."""
    return target_of(tenant, model, "chat", "tokens")
