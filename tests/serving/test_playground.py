"""The playground: one model or up to three side by side, with what each answer took, cost and rests on."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.test import Client

from billing.actions import record_usage
from billing.models import Subscription, UsageEvent
from billing.plans import FREE
from modeling.models import ModelVersion, ServedMinutes
from tenants.models import Tenant
from tenants.scope import scope
from tests.serving.made import Artifacts, EngineProcess, head_parts, item_parts
from tests.serving.speaking import make_version

pytestmark = pytest.mark.real_weights
BASE = "smollm2-135m"
PRIVATE = {"mode": "on", "epsilon": 7.981}
OPEN = {"mode": "off", "reason": "public manuals only"}


@pytest.fixture(autouse=True)
def _engine(settings: Any, engine: EngineProcess) -> None:
    settings.ENGINE_SOCKET = engine.socket


def carded(version: ModelVersion, privacy: dict[str, Any]) -> ModelVersion:
    with scope(version.tenant_id):
        version.card = {"privacy": privacy}
        version.save(update_fields=["card"])
    return version


@pytest.fixture
def chats(acme: Tenant, tmp_path: Path) -> list[ModelVersion]:
    """A chat model trained with privacy, and one without."""
    made = [Artifacts(tmp_path).chat(str(acme.pk), seed=seed) for seed in (1, 2)]
    versions = [make_version(acme, one.tensors, one.config, suffix="notes") for one in made]
    return [carded(one, privacy) for one, privacy in zip(versions, (PRIVATE, OPEN), strict=True)]


def page(browser: Client, tenant: Tenant, *models: str, **sent: Any) -> str:
    """The playground with these models; a POST when something is sent."""
    place = f"/t/{tenant.slug}/playground/"
    body = {"model": list(models), **sent}
    answer = browser.post(place, body) if sent else browser.get(place, body)
    assert answer.status_code == 200
    return str(answer.content.decode())


def panes(text: str) -> list[str]:
    return re.findall(r'<section class="pane".*?</section>', text, re.DOTALL)


def used(tenant: Tenant) -> dict[str, Decimal]:
    with scope(tenant):
        found: dict[str, Decimal] = {}
        for row in UsageEvent.objects.of(tenant):
            found[row.kind] = found.get(row.kind, Decimal(0)) + row.quantity
        return found


def test_one_model_is_the_default(alice: Client, acme: Tenant, chats: list[ModelVersion]) -> None:
    text = page(alice, acme)
    assert len(panes(text)) == 1
    assert "Compare with" in text
    assert f'data-model="{chats[1].name}"' in text  # the newest
    assert len(panes(page(alice, acme, chats[0].name, "", chats[0].name, "nonsense"))) == 1


def test_base_tuned_and_private_side_by_side(
    alice: Client, acme: Tenant, chats: list[ModelVersion], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modeling.actions.trying_chat.LONGEST_ANSWER", 6)
    private, without = chats
    text = page(alice, acme, BASE, without.name, private.name, message="Say hello.")
    first, second, third = panes(text)
    assert "Base model: no data of yours" in first
    assert "Not private: public manuals only" in second
    assert "epsilon 7.99 per patient" in third
    for one in (first, second, third):
        assert one.count("turn--user") == one.count("turn--assistant") == 1
        (facts,) = re.findall(r'<p class="turn__facts">(.*?)</p>', one)
        assert re.fullmatch(
            r"first token after [\d.]+ m?s · [\d.]+ m?s in all · \d+ tokens read, [1-6] written · included in Free",
            facts,
        )
    assert text.count('class="band"') == 1
    assert text.count('<input type="hidden" name="model"') == 3
    with scope(acme):
        rows = list(ServedMinutes.objects.of(acme))
    assert {(row.model, row.route, row.answered) for row in rows} == {
        (name, "playground", 1) for name in (BASE, without.name, private.name)
    }
    assert all(1 <= row.tokens_out <= 6 for row in rows)  # an answer may end before it must
    assert used(acme) == {"tokens": sum(row.tokens_in + row.tokens_out for row in rows)}


def test_a_price_where_the_plan_has_one(alice: Client, acme: Tenant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modeling.actions.trying_chat.LONGEST_ANSWER", 4)
    with scope(acme):
        Subscription.objects.of(acme).create(plan="team", status="active")
    text = page(alice, acme, BASE, message="Say hello.")
    tokens = used(acme)["tokens"]
    assert f"${float(tokens) * 0.0002 / 100:.6f}"[:8] in text  # two digits that count


def test_a_streamed_answer_ends_with_its_facts(
    alice: Client, acme: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modeling.actions.trying_chat.LONGEST_ANSWER", 5)
    body = {"model": BASE, "messages": [{"role": "user", "content": "hi"}]}
    answer: Any = alice.post(
        f"/t/{acme.slug}/playground/chat/", json.dumps(body), content_type="application/json"
    )

    async def whole() -> bytes:
        return b"".join([part async for part in answer.streaming_content])

    events = async_to_sync(whole)().decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    facts = json.loads(events[-3].removeprefix("data: "))
    assert facts["choices"] == []
    assert re.search(r" [1-5] written", facts["facts"])


def test_several_versions_of_a_classifier(alice: Client, acme: Tenant) -> None:
    names = [carded(make_version(acme, *head_parts(4, seed)), PRIVATE).name for seed in (1, 2, 3)]
    recommender = make_version(acme, *item_parts(20, 1))
    asked = page(alice, acme, *names)
    assert len(panes(asked)) == 3
    assert "and with" not in asked  # three are the most
    assert "and with" in page(alice, acme, *names[:2])
    assert len(panes(page(alice, acme, names[0], recommender.name))) == 1  # another task
    found = panes(page(alice, acme, *names[:2], text="a fracture of the wrist"))
    assert ["label-1-" in found[0], "label-2-" in found[1]] == [True, True]
    assert all("1 prediction · included in Free" in one for one in found)
    assert used(acme) == {"predictions": 2}


def test_a_refusal_stands_in_every_pane_and_keeps_what_was_typed(
    alice: Client, acme: Tenant, chats: list[ModelVersion]
) -> None:
    with scope(acme):
        record_usage(acme, "tokens", FREE.tokens, "all of them")
    text = page(alice, acme, BASE, chats[0].name, message="Say hello.")
    assert all("note--bad" in one for one in panes(text))
    assert "Say hello.</textarea>" in text
