"""Pages of endpoints: made, split, listened to, moved and rolled back with a browser that runs no scripts."""

from __future__ import annotations

import html
from typing import Any

import pytest

from modeling.models import Endpoint, EndpointChange
from tenants.scope import scope
from tests.serving.made import EngineProcess, head_parts
from tests.serving.speaking import client, in_thread, lifespan, make_version

pytestmark = pytest.mark.real_weights


@pytest.fixture(autouse=True)
def _engine(settings: Any, engine: EngineProcess) -> None:
    settings.ENGINE_SOCKET = engine.socket


@pytest.fixture
def versions(acme: Any) -> list[Any]:
    tensors, config = head_parts(5, 1)
    return [make_version(acme, tensors, config, suffix=f"triage-{number}") for number in (1, 2, 3)]


@pytest.fixture
def base(acme: Any) -> str:
    return f"/t/{acme.slug}/endpoints/"


def text_of(browser: Any, path: str) -> str:
    answer = browser.get(path)
    assert answer.status_code == 200, answer.content
    return html.unescape(answer.content.decode())


def post(browser: Any, path: str, **sent: Any) -> str:
    """Post a form and read the page it leads to."""
    answer = browser.post(path, sent)
    assert answer.status_code == 302, html.unescape(answer.content.decode())
    return text_of(browser, answer.url)


def state(tenant: Any) -> tuple[str, str | None, int, str | None]:
    with scope(tenant):
        row = Endpoint.objects.of(tenant).select_related("version", "canary", "shadow").get(name="prod")
        return (
            row.version.name,
            row.canary.name if row.canary else None,
            row.canary_percent,
            row.shadow.name if row.shadow else None,
        )


def test_it_works(acme: Any, alice: Any, base: str, versions: list[Any]) -> None:
    one, two, three = (version.name for version in versions)
    assert "No endpoint yet" in text_of(alice, base)
    assert f'value="{two}" selected' in text_of(alice, f"{base}?model={two}")
    page = post(alice, base, name="prod", model=one)
    assert "triage-1" in page
    assert "Roll back…" not in page
    assert '"model": "prod"' in page
    page = post(alice, f"{base}prod/split/", model=two, percent="20")
    assert "20 % of the requests" in page
    assert "Promote the canary" in page
    post(alice, f"{base}prod/shadow/", model=three)
    assert state(acme) == (one, two, 20, three)
    page = post(alice, f"{base}prod/promote/")
    assert "It was asked nothing in the last seven days." in page
    assert state(acme) == (two, None, 0, three)
    page = post(alice, f"{base}prod/rollback/")
    assert state(acme)[0] == one
    assert "to change 1" in page
    assert "Roll back to this" in page
    post(alice, f"{base}prod/rollback/", change="4")
    assert state(acme)[0] == two
    post(alice, f"{base}prod/point/", model=three)
    assert state(acme) == (three, None, 0, None)  # who answers does not listen
    assert "prod" in text_of(alice, base)
    gone = post(alice, f"{base}prod/delete/", confirmation="prod")
    assert "The endpoint was deleted." in gone


def test_a_refusal_says_why_and_changes_nothing(
    acme: Any, alice: Any, base: str, versions: list[Any]
) -> None:
    post(alice, base, name="prod", model=versions[0].name)
    again = alice.post(base, {"name": "Prod!", "model": versions[0].name})
    assert again.status_code == 400
    assert "out of a-z, 0-9 and hyphen" in again.content.decode()
    refused = alice.post(f"{base}prod/split/", {"model": versions[1].name, "percent": "100"})
    assert refused.status_code == 400
    assert "1 to 99 %" in html.unescape(refused.content.decode())
    assert alice.post(f"{base}prod/rollback/").status_code == 409
    assert alice.post(f"{base}prod/delete/", {"confirmation": "pro"}).status_code == 400
    assert alice.get(f"{base}none/").status_code == 404
    with scope(acme):
        assert EndpointChange.objects.of(acme).count() == 1


def test_a_new_endpoint_takes_a_free_name_only(acme: Any, alice: Any, base: str, versions: list[Any]) -> None:
    """The form of a new endpoint never moves one that programs call already."""
    assert 'action="#new"' in text_of(alice, base)
    post(alice, base, name="prod", model=versions[0].name)
    for name, said in (("prod", "You have an endpoint of this name"), ("tabular-x", "Choose another")):
        answer = alice.post(base, {"name": name, "model": versions[1].name})
        assert answer.status_code == 400
        assert said in answer.content.decode()
    assert state(acme)[0] == versions[0].name


def test_roles(alice: Any, bob: Any, vera: Any, carol: Any, base: str, versions: list[Any]) -> None:
    """Owners change rules and read the log, members move, viewers look, strangers find nothing."""
    post(alice, base, name="prod", model=versions[0].name)
    rules = {"personal_data": "mask", "log_days": "7"}
    assert bob.post(f"{base}prod/rules/", rules).status_code == 403
    assert bob.get(f"{base}prod/log/").status_code == 403
    assert "Masked" in post(alice, f"{base}prod/rules/", **rules)
    assert "triage-2" in post(bob, f"{base}prod/point/", model=versions[1].name)
    page = text_of(vera, f"{base}prod/")
    assert "<form" not in page.split('id="content"')[1]
    assert vera.post(f"{base}prod/rollback/").status_code == 403
    assert vera.post(base, {"name": "mine", "model": versions[0].name}).status_code == 200
    for path in (base, f"{base}prod/", f"{base}prod/log/"):
        assert carol.get(path).status_code == 404


@pytest.mark.asyncio
async def test_the_log_is_shown_exported_and_turned_off(
    api: Any, acme: Any, alice: Any, base: str, versions: list[Any]
) -> None:
    def turn_on() -> None:
        post(alice, base, name="prod", model=versions[0].name)
        assert "The log is off" in text_of(alice, f"{base}prod/log/")
        post(alice, f"{base}prod/rules/", personal_data="off", log_days="7")

    await in_thread(turn_on)
    async with lifespan(), client(api.key) as http:
        body = {"model": "prod", "inputs": ["Mail jane.doe@example.com about the fracture"]}
        assert (await http.post("/v1/classify", json=body)).status_code == 200

    def look_and_turn_off() -> None:
        page = text_of(alice, f"{base}prod/log/")
        assert "Mail [EMAIL] about the fracture" in page
        export = b"".join(alice.get(f"{base}prod/log.jsonl").streaming_content)
        assert b"[EMAIL]" in export
        assert export.count(b"\n") == 1
        assert "The log holds 1 prediction." in text_of(alice, f"{base}prod/")
        off = {"personal_data": "off", "log_days": "0"}
        assert alice.post(f"{base}prod/rules/", off).status_code == 409
        post(alice, f"{base}prod/rules/", **off, delete_predictions="on")
        assert "Nothing is kept" in text_of(alice, f"{base}prod/log/")

    await in_thread(look_and_turn_off)


def test_rules_of_own_names(acme: Any, alice: Any, base: str) -> None:
    page = post(alice, f"/t/{acme.slug}/predictions/rules/", personal_data="block", log_days="0")
    assert 'value="block" selected' in page
    wrong = alice.post(f"/t/{acme.slug}/predictions/rules/", {"personal_data": "block", "log_days": "400"})
    assert wrong.status_code == 400
    assert "Prediction log" in text_of(alice, f"/t/{acme.slug}/predictions/")
