"""A stream ends within a second of its key's revocation, billed for what was sent; so with tenant, member, version."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from modeling.actions import versions
from modeling.serving import gateway_open
from tenants import actions
from tenants.audit import SYSTEM, Actor
from tenants.models import ApiKey, Member
from tenants.scope import scope
from tests.serving.made import Artifacts, EngineProcess
from tests.serving.speaking import Stream, in_thread, lifespan, make_version
from tests.serving.test_gateway import STORY, used

pytestmark = [pytest.mark.real_weights, pytest.mark.asyncio]
ASK = {"model": "smollm2-135m", "messages": STORY, "max_tokens": 1500, "temperature": 0, "stream": True}


@pytest.fixture(autouse=True)
def _engine(settings: Any, engine: EngineProcess) -> None:
    settings.ENGINE_SOCKET = engine.socket


async def cut_by(
    act: Callable[[], Any], key: str, ask: dict[str, Any] = ASK
) -> tuple[dict[str, Any], float, int]:
    """(the error that ended the stream, seconds from the act to the end, pieces that came)."""
    async with lifespan():
        stream = Stream(key, "/v1/chat/completions", ask)
        await stream.events(4)
        began = time.monotonic()
        await in_thread(act)
        events = await asyncio.wait_for(stream.rest(), 8)
        seconds = time.monotonic() - began
    last = json.loads(events[-1])
    assert "error" in last, "the stream ended by itself"
    pieces = [json.loads(event)["choices"][0]["delta"].get("content") for event in events[:-1]]
    return last["error"], seconds, len([piece for piece in pieces if piece])


async def test_a_revoked_key_ends_its_stream(people: Any, acme: Any) -> None:
    secret = await in_thread(people.key, acme, "predict")

    def revoke() -> None:
        with scope(acme):
            actions.revoke_key(ApiKey.objects.of(acme).select_related("tenant").get(), actor=SYSTEM)

    error, seconds, pieces = await cut_by(revoke, secret)
    assert error["code"] == "invalid_api_key"
    assert seconds < 1
    paid = (await in_thread(used, acme))["tokens"] - 39
    assert pieces <= paid <= pieces + 3  # a piece may hold two tokens


async def test_a_suspended_tenant_ends_its_streams(people: Any, acme: Any) -> None:
    secret = await in_thread(people.key, acme, "predict")
    error, seconds, _ = await cut_by(
        lambda: actions.suspend_tenant(acme, reason="test", actor=SYSTEM), secret
    )
    assert error["code"] == "tenant_suspended"
    assert seconds < 1


async def test_a_removed_members_key_ends_its_stream(people: Any, acme: Any) -> None:
    def prepare() -> tuple[Member, str]:
        bob = people.user("bob")
        with scope(acme):
            made = actions.issue_key(acme, "bob's", ["predict"], Actor("user", str(bob.pk), bob.email))
            return Member.objects.of(acme).select_related("user", "tenant").get(user=bob), made[1]

    found, secret = await in_thread(prepare)

    def remove() -> None:
        with scope(acme):
            actions.remove_member(found, actor=SYSTEM)

    error, seconds, _ = await cut_by(remove, secret)
    assert error["code"] == "invalid_api_key"
    assert seconds < 1


async def test_a_withdrawn_version_ends_its_streams(people: Any, acme: Any, artifacts: Artifacts) -> None:
    secret = await in_thread(people.key, acme, "predict")
    made = artifacts.chat()
    version = await in_thread(make_version, acme, made.tensors, made.config)

    def withdraw() -> None:
        with scope(acme):
            versions.delete_version(acme, SYSTEM, version)

    error, seconds, _ = await cut_by(withdraw, secret, ASK | {"model": version.name})
    assert error["code"] == "model_not_found"
    assert seconds < 1


async def test_a_lost_message_is_made_up_for(people: Any, acme: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_open, "LOOK_SECONDS", 0.3)
    monkeypatch.setattr(gateway_open, "LONG_SECONDS", 0.5)
    monkeypatch.setattr("modeling.serving.gateway_auth.CACHE_SECONDS", 0.5)
    monkeypatch.setattr(actions, "REVOCATIONS", "nobody-listens-here")
    secret = await in_thread(people.key, acme, "predict")

    def revoke() -> None:
        with scope(acme):
            actions.revoke_key(ApiKey.objects.of(acme).select_related("tenant").get(), actor=SYSTEM)

    error, seconds, _ = await cut_by(revoke, secret)
    assert error["code"] == "invalid_api_key"
    assert seconds < 4


async def test_others_streams_go_on(people: Any, acme: Any) -> None:
    """The control: revoking one key leaves another key's stream of the same tenant alone."""
    first, second = await in_thread(people.key, acme, "predict"), await in_thread(people.key, acme, "predict")

    def revoke() -> None:
        with scope(acme):
            one = ApiKey.objects.of(acme).select_related("tenant").order_by("pk").last()
            assert one is not None
            actions.revoke_key(one, actor=SYSTEM)

    async with lifespan():
        stays = Stream(first, "/v1/chat/completions", ASK | {"max_tokens": 60})
        ends = Stream(second, "/v1/chat/completions", ASK | {"max_tokens": 60})
        await asyncio.gather(stays.events(3), ends.events(3))
        await in_thread(revoke)
        kept, cut = await asyncio.gather(stays.rest(), ends.rest())
    assert kept[-1] == "[DONE]"
    assert "error" in json.loads(cut[-1])
