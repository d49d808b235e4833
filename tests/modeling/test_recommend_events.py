"""Events of recommended items: counted once by model, endpoint, day and place; of people nothing is taken or kept."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connections, transaction
from django.template.loader import render_to_string

from modeling.actions.recommendations import BELIEVED_DAYS
from modeling.models import CountedEvent, Endpoint, ModelVersion, RecommendedDay
from modeling.queries.recommended import recommended, share_of
from modeling.serving.recommendation_ids import issue
from modeling.serving.targets import id_key
from tenants import resealing, vault
from tenants.scope import scope
from tests.make import Api, People
from tests.serving.made import item_parts
from tests.serving.speaking import make_version

ITEMS = [f"item-{number}" for number in range(60)]


@pytest.fixture
def model(acme: Any) -> ModelVersion:
    return make_version(acme, *item_parts(60, 1))


def listed(model: ModelVersion, count: int = 10, *, endpoint: str = "", days_ago: float = 0) -> str:
    """The id of a list that the model made."""
    with scope(model.tenant_id):
        own = id_key(model)
    at = int(time.time() - days_ago * 86_400)
    return issue(own, version=str(model.pk), endpoint=endpoint, items=ITEMS[:count], at=at)


def send(api: Api, *events: dict[str, Any], status: int = 200) -> Any:
    response = api.post("/v1/recommend/events", {"events": list(events)})
    assert response.status_code == status, response.content
    return response.json()


def rows(tenant: Any) -> set[tuple[str, str, str, int, int]]:
    with scope(tenant):
        found = RecommendedDay.objects.of(tenant)
        return set(found.values_list("model", "endpoint", "kind", "position", "count"))


def test_events_are_counted_by_place(api: Api, acme: Any, model: ModelVersion) -> None:
    with scope(acme):
        endpoint = Endpoint.objects.of(acme).create(name="home", version=model)
    own, under = listed(model, 3), listed(model, 3, endpoint=str(endpoint.pk))
    done = send(
        api,
        {"recommendation_id": own, "type": "shown"},
        {"recommendation_id": own, "type": "click", "item": "item-1"},
        {"recommendation_id": under, "type": "purchase", "item": "item-2"},
    )
    assert done == {"object": "recommendation_events", "recorded": 3, "repeated": 0, "refused": []}
    assert rows(acme) == {
        *((model.name, "", "shown", place, 1) for place in (1, 2, 3)),
        (model.name, "", "click", 2, 1),
        (model.name, "home", "purchase", 3, 1),
    }


def test_an_event_counts_once_however_often_it_is_sent(api: Api, acme: Any, model: ModelVersion) -> None:
    click = {"recommendation_id": listed(model), "type": "click", "item": "item-0"}
    assert send(api, click, click)["recorded"] == 1
    again = send(api, click, click | {"event_id": "second"}, click | {"event_id": "second"})
    assert (again["recorded"], again["repeated"]) == (1, 2)
    assert rows(acme) == {(model.name, "", "click", 1, 2)}


def test_a_long_list_is_shown_as_a_whole(api: Api, acme: Any, model: ModelVersion) -> None:
    send(api, {"recommendation_id": listed(model, 60), "type": "shown"})
    found = {(place, count) for *_names, place, count in rows(acme)}
    assert found == {*((place, 1) for place in range(1, 51)), (0, 10)}


def test_what_cannot_be_counted_is_named_and_the_rest_counts(
    api: Api, people: People, acme: Any, globex: Any, model: ModelVersion
) -> None:
    strange = make_version(globex, *item_parts(60, 2))
    good = listed(model)
    done = send(
        api,
        {"recommendation_id": listed(strange), "type": "click", "item": "item-0"},
        {
            "recommendation_id": good[:-2] + ("AA" if good[-2:] != "AA" else "BB"),
            "type": "click",
            "item": "item-0",
        },
        {"recommendation_id": good, "type": "click", "item": "item-59"},
        {"recommendation_id": listed(model, days_ago=BELIEVED_DAYS + 1), "type": "click", "item": "item-0"},
        {"recommendation_id": good, "type": "click", "item": "item-0", "at": 5},
        {"recommendation_id": good, "type": "click", "item": "item-0"},
    )
    codes = [(one["index"], one["code"]) for one in done["refused"]]
    assert codes == [
        (0, "unknown_recommendation"),
        (1, "unknown_recommendation"),
        (2, "item_not_recommended"),
        (3, "recommendation_expired"),
        (4, "invalid_value"),
    ]
    assert done["recorded"] == 1
    assert rows(globex) == set()


@pytest.mark.parametrize(
    ("event", "param", "code"),
    [
        ({"user": "u-1"}, "events[0]", "personal_data"),
        ({"session_id": "s"}, "events[0]", "personal_data"),
        ({"type": "stolen"}, "events[0].type", "invalid_value"),
        ({"item": None}, "events[0].item", "missing_required_parameter"),
        ({"item": ["a"]}, "events[0].item", "invalid_value"),
        ({"note": "x"}, "note", "unknown_parameter"),
        ({"at": "now"}, "events[0].at", "invalid_value"),
    ],
)
def test_a_body_that_is_wrong_is_refused_whole(
    api: Api, acme: Any, model: ModelVersion, event: dict[str, Any], param: str, code: str
) -> None:
    body = {"recommendation_id": listed(model), "type": "click", "item": "item-0"} | event
    problem = send(api, body, status=400)["error"]
    assert (problem["param"], problem["code"]) == (param, code)
    assert rows(acme) == set()


def test_at_most_a_thousand_at_once(api: Api, model: ModelVersion) -> None:
    name = listed(model)
    events = [
        {"recommendation_id": name, "type": "view", "item": "item-0", "event_id": str(n)} for n in range(1001)
    ]
    assert send(api, *events, status=400)["error"]["param"] == "events"
    assert send(api, *events[:1000])["recorded"] == 1000


def test_the_summary_adds_up(api: Api, acme: Any, model: ModelVersion) -> None:
    for number in range(20):
        name = listed(model, 5)
        send(api, {"recommendation_id": name, "type": "shown"})
        if number < 4:
            send(api, {"recommendation_id": name, "type": "click", "item": "item-0"})
    body = api.get("/v1/recommend/events/summary", model=model.name).json()
    assert (body["total"]["shown"], body["total"]["click"], body["total"]["purchase"]) == (100, 4, 0)
    through = body["total"]["click_through"]
    assert through["share"] == 0.04
    assert 0.01 < through["low"] < 0.02 < 0.09 < through["high"] < 0.1
    assert [place["position"] for place in body["positions"]] == [1, 2, 3, 4, 5]
    assert body["positions"][0]["click_through"]["share"] == 0.2
    assert [day["day"] for day in body["days"]] == [datetime.now(UTC).date().isoformat()]


def test_the_summary_is_for_ones_own_models(
    api: Api, people: People, globex: Any, model: ModelVersion
) -> None:
    other = people.api("globex")
    assert other.get("/v1/recommend/events/summary", model=model.name).status_code == 404
    assert api.get("/v1/recommend/events/summary").status_code == 400
    assert api.get("/v1/recommend/events/summary", model=model.name, days="0").status_code == 400


def test_of_people_and_items_nothing_is_kept(api: Api, acme: Any, model: ModelVersion) -> None:
    send(
        api,
        {"recommendation_id": listed(model), "type": "click", "item": "item-7", "event_id": "canary-person"},
    )
    kept = ""
    with transaction.atomic(using="migrator"), connections["migrator"].cursor() as cursor:
        cursor.execute("SELECT set_config('app.tenant_id', %s, true)", [str(acme.pk)])
        for table in (RecommendedDay._meta.db_table, CountedEvent._meta.db_table):
            cursor.execute(f'SELECT t::text FROM "{table}" t')
            kept += "".join(text for (text,) in cursor.fetchall())
    assert model.name in kept
    assert "canary-person" not in kept
    assert "item-7" not in kept


def test_ids_of_a_deleted_model_are_unknown(api: Api, acme: Any, model: ModelVersion) -> None:
    name = listed(model)
    with scope(acme):
        row = ModelVersion.objects.of(acme).select_related("object").get(pk=model.pk)
        vault.destroy(row.object)
    refused = send(api, {"recommendation_id": name, "type": "click", "item": "item-0"})["refused"]
    assert [one["code"] for one in refused] == ["unknown_recommendation"]


def test_ids_outlive_new_data_keys_and_older_ones_are_known(api: Api, acme: Any, model: ModelVersion) -> None:
    """Until now the data key sealed them: such an id counts as long as that key lives."""
    with scope(acme):
        row = ModelVersion.objects.of(acme).select_related("object").get(pk=model.pk)
        before = vault.data_key(row.object)
    version = str(model.pk)
    older = issue(before, version=version, endpoint="", items=ITEMS[:3], at=int(time.time()))
    newer = listed(model, 3)
    events = [{"recommendation_id": name, "type": "click", "item": "item-1"} for name in (older, newer)]
    assert send(api, *events)["recorded"] == 2
    assert resealing.reseal(row.object, sign=lambda: None)
    events = [event | {"event_id": "after"} for event in events]
    done = send(api, *events)
    assert (done["recorded"], [one["code"] for one in done["refused"]]) == (1, ["unknown_recommendation"])


def part_of_page(tenant: Any, model: ModelVersion) -> str:
    with scope(tenant):
        words = {"recommended": recommended(tenant, model.name)}
        return str(render_to_string("modeling/recommend_events.html", words))


def test_the_models_page_shows_the_shares(api: Api, acme: Any, model: ModelVersion) -> None:
    assert "/v1/recommend/events" in part_of_page(acme, model)
    name = listed(model, 4)
    send(
        api,
        {"recommendation_id": name, "type": "shown"},
        {"recommendation_id": name, "type": "click", "item": "item-2"},
        {"recommendation_id": name, "type": "purchase", "item": "item-2"},
    )
    page = part_of_page(acme, model)
    assert "Click-through" in page
    assert page.count("25") >= 3
    assert datetime.now(UTC).date().isoformat() in page


@pytest.mark.parametrize(("shown", "taken"), [(1, 0), (1, 1), (10, 3), (100_000, 2_000)])
def test_the_interval_holds_the_share(shown: int, taken: int) -> None:
    found = share_of(shown, taken)
    assert found is not None
    assert 0 <= found.low <= found.share <= found.high <= 1
    assert found.high - found.low < 1
    assert share_of(0, 0) is None
