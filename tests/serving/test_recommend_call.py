"""POST /v1/recommend through gateway and engine: filters, candidates, diversity, unknown items, and a sealed id."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from modeling.core.recommend_columns import Columns, encode
from modeling.core.recommend_ranking import Wish, rank
from modeling.core.recommend_scores import ItemModel
from modeling.models import Endpoint
from modeling.serving.recommendation_ids import verify, version_of
from modeling.serving.targets import id_key
from tenants.scope import scope
from tests.serving.made import EngineProcess, item_parts
from tests.serving.speaking import client, in_thread, lifespan, make_version

pytestmark = [pytest.mark.real_weights, pytest.mark.asyncio]
ITEMS = 60
CELLS: dict[str, list[Any]] = {
    "category": [("shoes", "bags", "hats")[number % 3] for number in range(ITEMS)],
    "price": [float(number) for number in range(ITEMS)],
}
TENSORS, CONFIG = item_parts(ITEMS, 3)
MORE, COLUMNS = encode(CELLS)


@pytest.fixture(autouse=True)
def _engine(settings: Any, engine: EngineProcess) -> None:
    settings.ENGINE_SOCKET = engine.socket


@pytest.fixture
def key(people: Any, acme: Any) -> str:
    secret: str = people.key(acme, "predict")
    return secret


@pytest.fixture
def shop(acme: Any) -> Any:
    return make_version(acme, TENSORS | MORE, CONFIG | {"columns": COLUMNS})


async def ask(http: httpx.AsyncClient, model: str, **body: Any) -> httpx.Response:
    return await http.post("/v1/recommend", json={"model": model, **body})


async def test_the_call_gives_what_the_ranking_gives(key: str, shop: Any) -> None:
    tensors, config = TENSORS | MORE, CONFIG | {"columns": COLUMNS}
    model, columns = ItemModel(tensors, config), Columns(tensors, config)
    history = ["item-3", "item-9"]
    asked: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"filter": {"category": ["shoes", "hats"]}}, {"kept": {"category": ["shoes", "hats"]}}),
        (
            {"filter": {"category": "bags", "price": {"max": 30}}},
            {"kept": {"category": ["bags"], "price": {"max": 30}}},
        ),
        ({"exclude_filter": {"category": ["shoes"]}}, {"dropped": {"category": ["shoes"]}}),
        ({"candidates": ["item-1", "item-2", 7]}, {"candidates": ["item-1", "item-2"]}),
        ({"diversity": 0.6}, {"diversity": 0.6}),
    ]
    async with lifespan(), client(key) as http:
        answers = [(await ask(http, shop.name, history=history, k=8, **body)).json() for body, _ in asked]
    for answer, (_, wanted) in zip(answers, asked, strict=True):
        expected = rank(model, columns, tensors["items.features"], Wish(history=history, k=8, **wanted)).items
        assert [(row["item"], pytest.approx(row["score"], abs=1e-5)) for row in answer["items"]] == expected
        assert answer["items"]
    assert answers[3]["unknown_items"] == {"candidates": 1}


async def test_an_unknown_person_is_told_that_the_list_is_everybodys(key: str, shop: Any) -> None:
    async with lifespan(), client(key) as http:
        answer = (await ask(http, shop.name, history=["new-1", "new-2"], filter={"category": "hats"})).json()
    assert answer["basis"] == "popular"
    assert answer["unknown_items"] == {"history": 2}
    assert all(int(row["item"].removeprefix("item-")) % 3 == 2 for row in answer["items"])


async def test_what_cannot_be_filtered_is_refused(key: str, acme: Any, shop: Any) -> None:
    old = await in_thread(make_version, acme, TENSORS, CONFIG)
    async with lifespan(), client(key) as http:
        refused = [
            (await ask(http, old.name, filter={"category": "hats"}), "unknown_column", "Train it again"),
            (await ask(http, shop.name, filter={"colour": "red"}), "unknown_column", "category, price"),
            (await ask(http, shop.name, filter={"category": {"min": 1}}), "invalid_value", "list of values"),
            (await ask(http, shop.name, filter={"category": []}), "invalid_value", "filter.category"),
            (await ask(http, shop.name, filter=["hats"]), "invalid_value", "filter"),
            (await ask(http, shop.name, diversity=1.5), "invalid_value", "diversity"),
            (await ask(http, shop.name, filter={"price": {"below": 3}}), "unknown_parameter", "parameter"),
        ]
    for response, code, words in refused:
        assert response.status_code == 400, response.text
        assert response.json()["error"]["code"] == code
        assert words in response.json()["error"]["message"]


async def test_the_id_says_what_was_shown_and_by_whom(key: str, acme: Any, shop: Any) -> None:
    def point() -> tuple[str, bytes]:
        with scope(acme):
            endpoint = Endpoint.objects.of(acme).create(name="home", version=shop)
            return str(endpoint.pk), id_key(shop)

    endpoint, own = await in_thread(point)
    async with lifespan(), client(key) as http:
        answer = (await ask(http, "home", history=["item-3"], k=5)).json()
    assert version_of(answer["id"]) == str(shop.pk)
    told = verify(answer["id"], own)
    assert (told.version, told.endpoint, told.count) == (str(shop.pk), endpoint, 5)
    assert [told.position(row["item"]) for row in answer["items"]] == [1, 2, 3, 4, 5]
