"""Who answers to an endpoint: point, split, shadow, promote, and the way back; each is a line of its history."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modeling.models import Endpoint, EndpointChange
from tenants.models import AuditEntry
from tenants.scope import scope
from tests.serving.made import EngineProcess, head_parts, item_parts
from tests.serving.speaking import make_version

pytestmark = pytest.mark.real_weights


@pytest.fixture(autouse=True)
def _engine(settings: Any, engine: EngineProcess) -> None:
    settings.ENGINE_SOCKET = engine.socket


@pytest.fixture
def versions(acme: Any) -> list[Any]:
    """Three classifiers with the same labels."""
    tensors, config = head_parts(5, 1)
    return [make_version(acme, tensors, config, suffix=f"v{number}") for number in (1, 2, 3)]


def done(answer: Any) -> dict[str, Any]:
    assert answer.status_code == 200, answer.content
    body: dict[str, Any] = answer.json()
    return body


def error(answer: Any, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.content
    body: dict[str, Any] = answer.json()["error"]
    return body


def point(api: Any, version: Any, name: str = "prod") -> dict[str, Any]:
    return done(api.post("/v1/endpoints", {"name": name, "model": version.name}))


def history(api: Any, name: str = "prod") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = done(api.get(f"/v1/endpoints/{name}/history"))["data"]
    return rows


def test_it_works(api: Any, acme: Any, versions: list[Any]) -> None:
    one, two, _three = versions
    made = point(api, one)
    assert made["model"] == one.name
    assert made["rules"] == {"personal_data": "off", "log_days": 0}
    assert (made["canary"], made["shadow"], "warnings" in made) == (None, None, False)
    split = done(api.post("/v1/endpoints/prod", {"canary": {"model": two.name, "percent": 25}}))
    assert (split["model"], split["canary"]) == (one.name, {"model": two.name, "percent": 25})
    assert done(api.post("/v1/endpoints/prod/promote"))["model"] == two.name
    assert done(api.post("/v1/endpoints/prod/rollback"))["model"] == one.name
    rows = history(api)
    assert [(row["change"], row["kind"], row["model"]) for row in rows] == [
        (4, "rollback", one.name),
        (3, "promote", two.name),
        (2, "split", one.name),
        (1, "point", one.name),
    ]
    assert rows[2]["canary"] == {"model": two.name, "percent": 25}
    assert rows[0]["restores"] == 1
    assert all(row["actor"].startswith("tests") for row in rows)
    with scope(acme):
        audited = AuditEntry.objects.of(acme).filter(action__startswith="endpoint.").order_by("seq")
        assert [row.action.removeprefix("endpoint.") for row in audited] == [
            row["kind"] for row in reversed(rows)
        ]


def test_going_back_twice_goes_further_back(api: Any, versions: list[Any]) -> None:
    one, two, three = versions
    for version in versions:
        point(api, version)
    assert done(api.post("/v1/endpoints/prod/rollback"))["model"] == two.name
    done(api.post("/v1/endpoints/prod", {"shadow": three.name, "rules": {"personal_data": "note"}}))
    again = done(api.post("/v1/endpoints/prod/rollback"))
    assert again["model"] == one.name  # and not three, which the first rollback had left
    assert (again["shadow"], again["rules"]["personal_data"]) == (three.name, "note")
    assert error(api.post("/v1/endpoints/prod/rollback"), 409)["code"] == "no_earlier_version"
    assert len(history(api)) == 7
    assert done(api.post("/v1/endpoints/prod/rollback", {"change": 3}))["model"] == three.name
    assert done(api.post("/v1/endpoints/prod/rollback"))["model"] == two.name


def test_a_rollback_takes_a_canary_away_first(api: Any, versions: list[Any]) -> None:
    one, two, three = versions
    point(api, one)
    point(api, two)
    done(api.post("/v1/endpoints/prod", {"canary": {"model": three.name, "percent": 10}}))
    back = done(api.post("/v1/endpoints/prod/rollback"))
    assert (back["model"], back["canary"]) == (two.name, None)
    assert done(api.post("/v1/endpoints/prod/rollback"))["model"] == one.name


def test_a_deleted_version_is_passed_over_and_cannot_be_named(api: Any, versions: list[Any]) -> None:
    one, two, three = versions
    for version in versions:
        point(api, version)
    assert api.delete(f"/v1/models/{two.name}").status_code == 200
    assert error(api.post("/v1/endpoints/prod/rollback", {"change": 2}), 409)["code"] == "version_deleted"
    assert done(api.get("/v1/endpoints/prod"))["model"] == three.name
    assert done(api.post("/v1/endpoints/prod/rollback"))["model"] == one.name


def test_what_answers_or_listens_cannot_be_deleted(api: Any, versions: list[Any]) -> None:
    one, two, three = versions
    point(api, one)
    body = {"canary": {"model": two.name, "percent": 10}, "shadow": three.name}
    done(api.post("/v1/endpoints/prod", body))
    for version in versions:
        assert error(api.delete(f"/v1/models/{version.name}"), 409)["code"] == "version_in_use"
    done(api.post("/v1/endpoints/prod", {"canary": None, "shadow": None}))
    for version in (two, three):
        assert api.delete(f"/v1/models/{version.name}").status_code == 200


def test_another_task_is_refused_and_other_labels_are_said(api: Any, acme: Any, versions: list[Any]) -> None:
    point(api, versions[0])
    shop = make_version(acme, *item_parts(20, 1))
    for body, path in (
        ({"name": "prod", "model": shop.name}, ""),
        ({"canary": {"model": shop.name, "percent": 10}}, "/prod"),
        ({"shadow": shop.name}, "/prod"),
    ):
        assert error(api.post(f"/v1/endpoints{path}", body), 409)["code"] == "task_change"
    assert len(history(api)) == 1
    assert point(api, shop, "shop")["model"] == shop.name
    other = make_version(acme, *head_parts(5, 2))
    assert "labels differ" in point(api, other)["warnings"][0]


def test_what_makes_no_sense_is_refused(api: Any, versions: list[Any]) -> None:
    one, two, _ = versions
    point(api, one)
    for body in (
        {"canary": {"model": two.name, "percent": 0}},
        {"canary": {"model": two.name, "percent": 100}},
        {"rules": {"log_days": 366}},
        {"rules": {"personal_data": "guess"}},
        {"canary": "all"},
        {"personal_data": "mask"},
        {"rules": {"personal_date": "mask"}},
    ):
        error(api.post("/v1/endpoints/prod", body), 400)
    same = {"canary": {"model": one.name, "percent": 5}}
    assert error(api.post("/v1/endpoints/prod", same), 409)["code"] == "version_in_use"
    assert error(api.post("/v1/endpoints/prod/promote"), 409)["code"] == "no_canary"
    assert error(api.post("/v1/endpoints/prod/rollback", {"change": 9}), 404)["param"] == "change"
    assert error(api.get("/v1/endpoints/prod/history", after="change-x"), 404)["param"] == "after"
    assert error(api.get("/v1/endpoints/none/history"), 404)
    assert len(history(api)) == 1


def test_a_new_endpoint_has_its_rules_from_the_first_request_on(api: Any, versions: list[Any]) -> None:
    rules = {"personal_data": "mask", "log_days": 3}
    made = api.post("/v1/endpoints", {"name": "prod", "model": versions[0].name, "rules": rules})
    assert made.status_code == 200
    assert made.json()["rules"] == rules
    assert point(api, versions[1])["rules"] == rules
    unknown = {"name": "other", "model": versions[0].name, "rule": rules}
    assert error(api.post("/v1/endpoints", unknown), 400)["param"] == "rule"
    error(api.get("/v1/endpoints/other"), 404)


def test_history_comes_in_pages(api: Any, versions: list[Any]) -> None:
    for number in range(5):
        point(api, versions[number % 2])
    first = done(api.get("/v1/endpoints/prod/history", limit=3))
    rest = done(api.get("/v1/endpoints/prod/history", limit=3, after=first["last_id"]))
    assert [row["change"] for row in first["data"] + rest["data"]] == [5, 4, 3, 2, 1]
    assert (first["has_more"], rest["has_more"]) == (True, False)


def test_a_repeated_rollback_with_one_key_happens_once(api: Any, versions: list[Any]) -> None:
    for version in versions:
        point(api, version)
    key = {"Idempotency-Key": "back-1"}
    first = api.post("/v1/endpoints/prod/rollback", {}, **key)
    again = api.post("/v1/endpoints/prod/rollback", {}, **key)
    assert done(first) == done(again)
    assert done(again)["model"] == versions[1].name
    assert len(history(api)) == 4
    assert error(api.post("/v1/endpoints/prod/rollback", {"change": 1}, **key), 422)


def test_a_version_that_cannot_be_loaded_leaves_the_endpoint(
    api: Any, acme: Any, versions: list[Any]
) -> None:
    from tenants import vault

    one, two, _ = versions
    point(api, one)
    file = Path(vault.location(two.object))
    file.write_bytes(file.read_bytes()[:-40] + bytes(40))
    refused = error(api.post("/v1/endpoints", {"name": "prod", "model": two.name}), 409)
    assert refused["code"] == "model_not_loadable"
    canary = {"canary": {"model": two.name, "percent": 10}}
    assert error(api.post("/v1/endpoints/prod", canary), 409)["code"] == "model_not_loadable"
    assert done(api.get("/v1/endpoints/prod"))["model"] == one.name
    assert len(history(api)) == 1


def test_without_an_engine_nothing_moves(api: Any, settings: Any, tmp_path: Any, versions: list[Any]) -> None:
    point(api, versions[0])
    settings.ENGINE_SOCKET, settings.ENGINE_PATIENCE_SECONDS = tmp_path / "none.sock", 0.2
    refused = api.post("/v1/endpoints", {"name": "prod", "model": versions[1].name})
    assert error(refused, 503)["code"] == "engine_unavailable"
    assert len(history(api)) == 1
    done(api.post("/v1/endpoints/prod", {"shadow": versions[2].name}))  # needs no engine


def test_the_database_refuses_a_canary_without_a_share(api: Any, acme: Any, versions: list[Any]) -> None:
    from django.db import IntegrityError

    point(api, versions[0])
    for wrong in (
        {"canary_percent": 5},
        {"canary": versions[1]},
        {"canary": versions[1], "canary_percent": 100},
    ):
        with pytest.raises(IntegrityError), scope(acme):
            Endpoint.objects.of(acme).filter(name="prod").update(**wrong)
    with scope(acme):
        assert EndpointChange.objects.of(acme).count() == 1
