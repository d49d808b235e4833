"""The prediction log: nothing anywhere without it, and with it only sealed, masked, kept as long as asked for."""

from __future__ import annotations

import json
import secrets
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.utils import timezone

from modeling.actions import predictions
from modeling.models import Prediction, PredictionKey
from modeling.tasks.predictions import forget_predictions
from tenants import vault
from tenants.scope import scope
from tests.architecture.matrix import rows_as_text
from tests.modeling.test_files_disk import found
from tests.serving.made import EngineProcess, head_parts, item_parts
from tests.serving.speaking import client, in_thread, lifespan, make_version

pytestmark = [pytest.mark.real_weights]


@pytest.fixture(autouse=True)
def _engine(settings: Any, engine: EngineProcess) -> None:
    settings.ENGINE_SOCKET = engine.socket


@pytest.fixture
def classifier(acme: Any, api: Any) -> Any:
    version = make_version(acme, *head_parts(5, 1))
    done(api.post("/v1/endpoints", {"name": "prod", "model": version.name}))
    return version


def done(answer: Any) -> dict[str, Any]:
    assert answer.status_code == 200, answer.content
    body: dict[str, Any] = answer.json()
    return body


def keep(api: Any, days: int, **more: Any) -> Any:
    return api.post("/v1/endpoints/prod", {"rules": {"log_days": days, **more}})


def listed(api: Any, path: str = "/v1/endpoints/prod/predictions", **query: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = done(api.get(path, **query))["data"]
    return rows


async def ask(api: Any, *texts: str, model: str = "prod") -> None:
    """One request for each text through a gateway that then stops, which writes what it noted."""
    async with lifespan(), client(api.key) as http:
        for text in texts:
            response = await http.post("/v1/classify", json={"model": model, "inputs": [text]})
            assert response.status_code == 200, response.text


async def ask_everything(api: Any, shop: Any, marker: str) -> None:
    """One request to each kind of model, with the marker in every text and id."""
    chat = [{"role": "user", "content": f"Say {marker} again."}]
    asked = {
        "/v1/classify": {"model": "prod", "inputs": [f"seen: {marker}"]},
        "/v1/embeddings": {"model": "prod", "input": f"seen: {marker}"},
        "/v1/recommend": {"model": shop.name, "user": marker, "history": [marker, "item-3"], "k": 3},
        "/v1/chat/completions": {"model": "smollm2-135m", "messages": chat, "max_tokens": 4},
    }
    async with lifespan(), client(api.key) as http:
        for path, body in asked.items():
            response = await http.post(path, json=body)
            assert response.status_code == 200, response.text


def places(acme: Any, marker: str, since: float) -> list[str]:
    """Where the marker lies: rows of any table, and files of the database, of Valkey, objects and logs."""
    rows = [table for table, lines in rows_as_text(acme).items() if any(marker in line for line in lines)]
    return rows + found(marker.encode(), since)


@pytest.mark.asyncio
@pytest.mark.parametrize("days", [0, 7])
async def test_a_request_is_nowhere_in_clear(api: Any, acme: Any, classifier: Any, days: int) -> None:
    """Without a log nothing is kept at all; with one it is there, but nobody finds it without the tenant's key."""
    shop = await in_thread(make_version, acme, *item_parts(20, 3))
    if days:
        done(await in_thread(keep, api, days))
        done(await in_thread(api.post, "/v1/prediction_rules", {"log_days": days}))
    marker, since = f"mark{secrets.token_hex(12)}", time.time()
    await ask_everything(api, shop, marker)
    assert await in_thread(places, acme, marker, since) == []
    own, models = await in_thread(listed, api), await in_thread(listed, api, "/v1/predictions")
    assert (len(own), len(models)) == ((2, 2) if days else (0, 0))
    assert all(marker in json.dumps(row["input"]) for row in own + models)
    planted = Path(django_settings.DATA_DIR) / f"planted-{days}.txt"  # the control: the search does find
    planted.write_text(f"in clear: {marker}")
    assert await in_thread(places, acme, marker, since) == [str(planted)]
    planted.unlink()


@pytest.mark.asyncio
async def test_an_entry_says_what_was_asked_with_personal_data_masked(
    api: Any, acme: Any, classifier: Any
) -> None:
    done(await in_thread(keep, api, 30))
    await ask(api, "Mail jane.doe@example.com about the fracture", "second")
    newest, first = await in_thread(listed, api)
    assert newest["input"] == {"inputs": ["second"]}
    assert first["input"] == {"inputs": ["Mail [EMAIL] about the fracture"]}
    assert first["answer"]["results"][0]["label"].startswith("label-1-")
    assert (first["model"], first["route"]) == (classifier.name, "/v1/classify")
    assert first["request_id"].startswith("req_")
    assert first["milliseconds"] >= 0
    page = await in_thread(api.get, "/v1/endpoints/prod/predictions", limit=1, after=newest["id"])
    assert [row["id"] for row in page.json()["data"]] == [first["id"]]
    export = await in_thread(_export, api)
    assert [json.loads(line) for line in export.splitlines()] == [newest, first]


def _export(api: Any) -> bytes:
    answer = api.get("/v1/endpoints/prod/predictions", format="jsonl")
    assert answer.headers["Content-Type"] == "application/jsonl"
    return b"".join(answer.streaming_content)


@pytest.mark.asyncio
async def test_turning_it_off_deletes_all_after_a_yes(api: Any, acme: Any, classifier: Any) -> None:
    done(await in_thread(keep, api, 30))
    await ask(api, "one", "two")
    refused = await in_thread(keep, api, 0)
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "predictions_kept")
    assert len(await in_thread(listed, api)) == 2
    done(await in_thread(keep, api, 0, delete_predictions=True))

    def left() -> tuple[int, int]:
        with scope(acme):
            return Prediction.objects.of(acme).count(), PredictionKey.objects.of(acme).count()

    assert await in_thread(left) == (0, 0)
    await ask(api, "three")
    assert await in_thread(left) == (0, 0)


@pytest.mark.asyncio
async def test_what_is_on_its_way_when_the_log_is_turned_off_is_not_kept(
    api: Any, acme: Any, classifier: Any
) -> None:
    done(await in_thread(keep, api, 30))
    async with lifespan(), client(api.key) as http:
        body = {"model": "prod", "inputs": ["on its way"]}
        assert (await http.post("/v1/classify", json=body)).status_code == 200
        await in_thread(keep, api, 0, delete_predictions=True)  # before the gateway has written
    assert await in_thread(listed, api) == []


@pytest.mark.asyncio
async def test_retention_deletes_entries_and_the_keys_of_whole_days(
    api: Any, acme: Any, classifier: Any
) -> None:
    done(await in_thread(keep, api, 2))
    await ask(api, "old", "young")

    def age_and_forget() -> tuple[int, int, int]:
        with scope(acme):
            old = Prediction.objects.of(acme).order_by("pk")[0]
            fresh = PredictionKey.objects.of(acme).get()
            past = timezone.now() - timedelta(days=2, minutes=1)
            moved = PredictionKey.objects.of(acme).create(
                endpoint=fresh.endpoint, day=(past - timedelta(days=1)).date(), wrapped=fresh.wrapped
            )
            Prediction.objects.of(acme).filter(pk=old.pk).update(at=past, key=moved)
        gone = forget_predictions()
        with scope(acme):
            return gone, Prediction.objects.of(acme).count(), PredictionKey.objects.of(acme).count()

    assert await in_thread(age_and_forget) == (1, 1, 1)
    assert [row["input"]["inputs"] for row in await in_thread(listed, api)] == [["young"]]


@pytest.mark.asyncio
async def test_entries_are_bound_to_their_place_and_die_with_the_tenants_key(
    api: Any, acme: Any, classifier: Any
) -> None:
    done(await in_thread(keep, api, 30))
    await ask(api, "one", "two")

    def swap_then_shred() -> None:
        with scope(acme):
            one, two = predictions.kept(acme, _endpoint(acme)).order_by("pk")
            assert len(predictions.opened([one, two])) == 2
            one.sealed, two.sealed = two.sealed, one.sealed
            with pytest.raises(vault.KeyDestroyed):
                predictions.opened([one])
            vault.shred_tenant(acme)
            with pytest.raises(vault.KeyDestroyed):
                predictions.opened(predictions.kept(acme, _endpoint(acme)))

    await in_thread(swap_then_shred)


def _endpoint(tenant: Any) -> Any:
    from modeling.actions import endpoints

    return endpoints.find(tenant, "prod")


@pytest.mark.asyncio
async def test_a_deleted_endpoint_leaves_no_entries(api: Any, acme: Any, classifier: Any) -> None:
    done(await in_thread(keep, api, 30))
    await ask(api, "one")
    assert (await in_thread(api.delete, "/v1/endpoints/prod")).status_code == 200

    def left() -> int:
        with scope(acme):
            return Prediction.objects.of(acme).count() + PredictionKey.objects.of(acme).count()

    assert await in_thread(left) == 0


def test_rules_of_own_names_start_at_nothing(api: Any, people: Any, acme: Any) -> None:
    nothing = {"object": "prediction_rules", "personal_data": "off", "log_days": 0}
    assert done(api.get("/v1/prediction_rules")) == nothing
    changed = done(api.post("/v1/prediction_rules", {"personal_data": "mask"}))
    assert changed == nothing | {"personal_data": "mask"}
    assert done(api.post("/v1/prediction_rules", {"log_days": 3}))["personal_data"] == "mask"
    assert done(people.api("globex").get("/v1/prediction_rules")) == nothing


def test_user_ids_are_left_out() -> None:
    asked = {"user": "u-1", "history": ["i-1"], "texts": ["call +44 20 7946 0958", 3, None]}
    assert predictions.masked(asked) == {"history": ["i-1"], "texts": ["call [PHONE]", 3, None]}


def test_a_large_request_leaves_only_that_it_was(api: Any, acme: Any, classifier: Any) -> None:
    done(keep(api, 30))
    with scope(acme):
        endpoint = _endpoint(acme).pk
    inputs = ["fever and cough, " * 100] * 200
    large = predictions.Entry(
        endpoint, timezone.now(), "req_1", "/v1/classify", classifier.name, 9, {"inputs": inputs}, {}
    )
    small = predictions.Entry(
        endpoint, timezone.now(), "req_2", "/v1/classify", classifier.name, 9, {"inputs": ["x"]}, {}
    )
    assert predictions.write(acme.pk, [large, small]) == 2
    newest, first = listed(api)
    assert newest["input"] == {"inputs": ["x"]}
    assert first["input"] == first["answer"] == {"left_out": "larger than 256 KiB"}


def test_the_log_and_its_rules_need_a_scope_of_their_own(people: Any, classifier: Any) -> None:
    other = people.api("acme", "files", "train", "predict", "models", "privacy", "usage")
    assert other.get("/v1/endpoints/prod").status_code == 200
    paths = ("/v1/endpoints/prod/predictions", "/v1/predictions", "/v1/prediction_rules")
    refused = [other.get(path) for path in paths]
    refused += [keep(other, 7), other.post("/v1/prediction_rules", {"log_days": 7})]
    refused.append(
        other.post("/v1/endpoints", {"name": "new", "model": classifier.name, "rules": {"log_days": 7}})
    )
    for answer in refused:
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "missing_scope")
    reader = people.api("acme", "predictions")
    assert all(reader.get(path).status_code == 200 for path in paths)
