"""The playground keeps the personal-data rule, too: what a program may not show a model, a page does not either."""

from __future__ import annotations

from typing import Any

import pytest

from modeling.actions import trying, trying_chat
from modeling.models import DefaultRules
from modeling.serving.gateway_metrics import METRICS
from modeling.serving.targets import serving_target
from saas.lib.errors import Refusal
from tenants.models import Tenant
from tenants.scope import scope
from tests.serving.made import EngineProcess, head_parts
from tests.serving.speaking import make_version

pytestmark = pytest.mark.real_weights
TEXT = "Mail anna.canary@example.com about the fracture."
MASKED = "Mail [EMAIL] about the fracture."


@pytest.fixture(autouse=True)
def _engine(settings: Any, engine: EngineProcess) -> None:
    settings.ENGINE_SOCKET = engine.socket


def rule(tenant: Tenant, policy: str) -> None:
    with scope(tenant):
        DefaultRules.objects.of(tenant).update_or_create(
            defaults={"personal_data": policy}, create_defaults={"tenant": tenant, "personal_data": policy}
        )


def test_a_text_is_masked_or_refused(acme: Tenant) -> None:
    name = make_version(acme, *head_parts(5, 1)).name
    wanted = trying.classify(acme, name, MASKED).results
    assert trying.classify(acme, name, TEXT).results != wanted
    rule(acme, "mask")
    assert trying.classify(acme, name, TEXT).results == wanted
    rule(acme, "block")
    with pytest.raises(Refusal) as refusal:
        trying.classify(acme, name, TEXT)
    assert refusal.value.code == "personal_data"
    assert "canary" not in str(refusal.value.message)


def test_a_conversation_is_masked_or_refused(acme: Tenant) -> None:
    target = serving_target(acme.pk, "smollm2-135m")
    turns = [{"role": "user", "content": TEXT}]
    rule(acme, "mask")
    before = METRICS.events["texts_masked"]
    (told,) = trying_chat.chat_whole(acme, [target], turns)
    assert told.text
    assert METRICS.events["texts_masked"] == before + 1
    rule(acme, "block")
    (told,) = trying_chat.chat_whole(acme, [target], turns)
    assert (told.text, "personal data" in told.refusal) == ("", True)
