"""Every route and operation, as tenant A with tenant B's ids: nothing leaks; and the planted leaks are all caught."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from asgiref.testing import ApplicationCommunicator
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import get_resolver

from modeling.actions import endpoints, holds
from modeling.models import Endpoint, Erasure, ModelVersion
from modeling.serving.recommendation_ids import issue
from tenants import actions, vault
from tenants.audit import SYSTEM, Actor
from tenants.models import ApiKey, Member
from tenants.scope import scope
from tests.architecture import leaks
from tests.architecture.matrix import Bodies, Route, World, ask, examine, routes, row_ids
from tests.make import PASSWORD, Api, People
from tests.modeling.clinic import row_of, started, train, uploaded, words_csv

PRODUCT = "saas.urls"
# Routes that the walk leaves to other tests, with the reason.
LEFT_OUT = {
    "/accounts/": "allauth's own pages: they take no tenant's id",
    "/console/": "operators only; tests/tenants/test_console.py walks them",
    "/healthz": "takes no id and names no tenant; 503 without the other processes",
    "/stripe/": "takes signed messages only; tests/billing/test_checkout.py",
}
BODIES: Bodies = {
    "/v1/fine_tuning/jobs": lambda ids: {"training_file": ids["file_id"], "model": "minilm-l6"},
    "/v1/fine_tuning/quote": lambda ids: {"training_file": ids["file_id"], "model": "minilm-l6"},
    "/v1/batches": lambda ids: {
        "input_file_id": ids["batch_file_id"],
        "endpoint": "/v1/embeddings",
        "completion_window": "24h",
    },
    "/v1/datasets/{dataset_id}": lambda ids: {"columns": {"text": "text", "label": "label", "unit": ""}},
    "/t/{slug}/data/{public_id}/columns/": lambda ids: {"each_row": "1", "confirm_unit": "1"},
    "/v1/uploads/{upload_id}/complete": lambda ids: {"part_ids": [ids["part_id"]]},
    "/t/{slug}/batches/new/": lambda ids: {"file_id": ids["batch_file_id"], "endpoint": "/v1/embeddings"},
    "/v1/recommend/events": lambda ids: {
        "events": [{"recommendation_id": ids["recommendation_id"], "type": "shown"}]
    },
    "/v1/endpoints": lambda ids: {"name": "taken-over", "model": ids["name"]},
    "/v1/endpoints/{name}": lambda ids: {"shadow": None, "rules": {"log_days": 1}},
    "/t/{slug}/endpoints/": lambda ids: {"name": "taken-over", "model": ids["name"]},
    "/t/{slug}/endpoints/{name}/point/": lambda ids: {"model": ids["model"]},
    "/t/{slug}/endpoints/{name}/split/": lambda ids: {"model": ids["model"], "percent": "50"},
    "/t/{slug}/endpoints/{name}/shadow/": lambda ids: {"model": ids["model"]},
    "/t/{slug}/endpoints/{name}/rules/": lambda ids: {"personal_data": "off", "log_days": "1"},
    "/t/{slug}/endpoints/{name}/delete/": lambda ids: {"confirmation": ids["name"]},
    "/t/{slug}/training/new/": lambda ids: {"dataset": ids["public_id"], "epsilon": "8"},
    "/t/{slug}/models/{short_id}/proof/": lambda ids: {"person": "person 1"},
    "/t/{slug}/privacy/{account_id}/budget/": lambda ids: {
        "epsilon": "90",
        "reason": "taken over",
        "password": PASSWORD,
    },
    "/v1/datasets/{dataset_id}/versions": lambda ids: {"mode": "remove", "units": ["person 1"]},
    "/v1/datasets/{dataset_id}/erasures": lambda ids: {"unit": "person 1", "everywhere": True},
    "/t/{slug}/data/{public_id}/versions/": lambda ids: {"mode": "append", "file": ids["file_id"]},
    "/t/{slug}/data/{public_id}/erasures/": lambda ids: {"unit": "person 1", "confirmation": "own.csv"},
    "/t/{slug}/personal-data/change/": lambda ids: {"name": "block", "columns": "all"},
    "/t/{slug}/settings/delete/": lambda ids: {"do": "cancel", "confirmation": ids["slug"]},
    "/t/{slug}/retention/rules/": lambda ids: {"kind": "training", "days": "soon"},
    "/t/{slug}/retention/holds/": lambda ids: {"covers": ids["public_id"], "reason": "taken over"},
    "/t/{slug}/retention/holds/{hold_id}/release/": lambda ids: {"reason": "taken over"},
    "/t/{slug}/playground/": lambda ids: {"model": ids["name"], "text": "hello"},
    "/t/{slug}/playground/chat/": lambda ids: {"model": ids["name"], "messages": "[]"},
}
GATEWAY = {
    "/v1/classify": {"inputs": ["hello"]},
    "/v1/recommend": {"history": ["i-1"], "k": 3},
    "/v1/embeddings": {"input": "hello"},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hello"}]},
}


@pytest.fixture(scope="module")
def world(database: None) -> World:
    """Two tenants, each with a file, a dataset, a job, a model, an endpoint, a key, members and invitations."""
    people = People()
    canary = f"canary{people.tag}"
    a = people.acme
    b = people.globex
    with scope(b):
        actions.rename_tenant(b, f"Globex {canary}", actor=SYSTEM)
    people.join(b, f"member-{canary}", "member")
    for name in ("acme", "globex"):
        tenant = getattr(people, name)
        api = people.api(name)
        file_id = uploaded(api, tenant, words_csv(), name=f"{canary if tenant is b else 'own'}.csv")
        job = started(
            api, file_id, privacy={"mode": "off", "reason": f"test {canary if tenant is b else ''}"}
        )
        done = train(tenant, job["id"])
        assert done.state == "succeeded", done.error
    with scope(b):
        actor = Actor("system", canary, canary)
        actions.invite_member(b, actor, f"{canary}@example.test", "viewer")
        key, _secret = actions.issue_key(b, f"key {canary}", ["files"], actor)
        version = ModelVersion.objects.of(b).get()
        member = Member.objects.of(b).filter(role="member").get()
        invite = next(iter(_invites(b)))
        job_row = row_of(b, job["id"])
        assert job_row.dataset_version is not None
        ids = {
            "slug": b.slug,
            "file_id": file_id,
            "dataset_id": job_row.dataset_version.dataset.public_id,
            "public_id": job_row.dataset_version.dataset.public_id,
            "job_id": job["id"],
            "name": version.name,
            "model": version.name,
            "short_id": version.name.rsplit(":", 1)[-1],
            "member_id": str(member.pk),
            "invite_id": str(invite.pk),
            "key_id": key.public_id,
            "token": str(invite.pk),
            "recommendation_id": issue(
                vault.data_key(version.object),
                version=str(version.pk),
                endpoint="",
                items=["i-1"],
                at=int(time.time()),
            ),
            "account_id": str(job_row.dataset_version.dataset.account_id),
            "number": "100000017",  # of a version; long, since ids are taken out of answers
            "erasure_id": Erasure.objects.of(b)
            .create(dataset=job_row.dataset_version.dataset, person="0" * 64, created_by=canary)
            .public_id,
            "hold_id": holds.place(
                b, SYSTEM, reason=canary, dataset=job_row.dataset_version.dataset
            ).public_id,
        }
    ids |= _batch_ids(people.api("globex"), canary)
    made = World(a, b, people.browser("alice"), people.key(a), ids, canary)
    made.b_rows = row_ids(b)
    return made


def _batch_ids(api: Api, canary: str) -> dict[str, str]:
    """A batch with its file, and an upload with a part, whose names are the canary."""
    line = {"custom_id": canary, "method": "POST", "url": "/v1/embeddings", "body": {}}
    file = api.upload(f"{canary}.jsonl", json.dumps(line).encode(), "batch").json()["id"]
    body = {"input_file_id": file, "endpoint": "/v1/embeddings", "completion_window": "24h"}
    batch = api.post("/v1/batches", body | {"metadata": {"a": canary}}).json()["id"]
    announced = {"filename": canary, "purpose": "batch", "bytes": 3, "mime_type": "text/plain"}
    upload = api.post("/v1/uploads", announced).json()["id"]
    part = api.client.post(f"/v1/uploads/{upload}/parts", {"data": SimpleUploadedFile("p", b"abc")})
    ids = {"batch_file_id": file, "batch_id": batch, "upload_id": upload, "kind": "output"}
    return ids | {"part_id": part.json()["id"]}


def _invites(tenant: Any) -> Any:
    from tenants.models import Invite

    return Invite.objects.of(tenant)


def product_routes() -> list[Route]:
    """The product's routes, less those left out with a reason."""
    found = routes(get_resolver(PRODUCT).url_patterns)
    return [route for route in found if not route.path.startswith(tuple(LEFT_OUT))]


@pytest.mark.real_weights
def test_nothing_leaks_on_any_route(world: World) -> None:
    walked = product_routes()
    assert len(walked) > 50
    found = [leak for route in walked for leak in examine(world, route, BODIES)]
    assert not found, "\n".join(found)


@pytest.mark.slow
@pytest.mark.real_weights
def test_ids_of_jobs_and_files_on_pages(world: World) -> None:
    """`public_id` stands for several nouns on pages: the walk again with each of them."""
    for noun in ("job_id", "file_id", "batch_id"):
        other = World(
            world.a,
            world.b,
            world.browser,
            world.key,
            {**world.ids, "public_id": world.ids[noun]},
            world.canary,
        )
        other.b_rows = world.b_rows
        pages = [route for route in product_routes() if "public_id" in route.params]
        assert pages
        assert [leak for route in pages for leak in examine(other, route, BODIES)] == []


@pytest.mark.real_weights
def test_endpoint_names_are_each_tenants_own(world: World) -> None:
    with scope(world.b):
        name = Endpoint.objects.of(world.b).values_list("name", flat=True).first()
    own = World(world.a, world.b, world.browser, world.key, {**world.ids, "name": str(name)}, world.canary)
    own.b_rows = world.b_rows
    with scope(world.a):
        for row in Endpoint.objects.of(world.a).filter(name=name):
            endpoints.delete(world.a, SYSTEM, row)
    walked = [route for route in product_routes() if "/endpoints/{name}" in route.path]
    assert len(walked) >= 15
    assert [leak for route in walked for leak in examine(own, route, BODIES)] == []


@pytest.mark.real_weights
@pytest.mark.parametrize("path", sorted(GATEWAY))
def test_the_gateway_knows_no_strangers_models(world: World, path: str) -> None:
    import httpx

    from modeling.serving.gateway import application

    async def ask_gateway(model: str) -> tuple[int, str]:
        transport = httpx.ASGITransport(app=application)
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
            headers = {"Authorization": f"Bearer {world.key}"}
            answer = await client.post(path, json={"model": model, **GATEWAY[path]}, headers=headers)
        return answer.status_code, answer.text.replace(model, "ID")

    real = async_to_sync(ask_gateway)(world.ids["name"])
    assert real == async_to_sync(ask_gateway)(world.strange("name"))
    assert real[0] == 404
    assert world.canary not in real[1]


@pytest.mark.real_weights
def test_a_strangers_job_is_no_websocket(world: World) -> None:
    from saas.asgi import application

    async def code(job_id: str) -> Any:
        headers = [(b"authorization", f"Bearer {world.key}".encode()), (b"origin", b"http://testserver")]
        headers.append((b"host", b"testserver"))
        asked = {"type": "websocket", "path": f"/ws/jobs/{job_id}", "query_string": b"", "headers": headers}
        socket = ApplicationCommunicator(
            application, asked | {"subprotocols": [], "client": ("127.0.0.1", 1)}
        )
        await socket.send_input({"type": "websocket.connect"})
        answer = await socket.receive_output(timeout=10)
        if answer["type"] == "websocket.accept":
            answer = await socket.receive_output(timeout=10)
        socket.stop(exceptions=False)
        return answer.get("code")

    real = async_to_sync(code)(world.ids["job_id"])
    assert real == async_to_sync(code)(world.strange("job_id"))
    assert real == 4404


@pytest.mark.real_weights
@pytest.mark.parametrize("planted", leaks.PLANTED, ids=lambda row: row[1].__name__)
def test_planted_leaks_are_caught(world: World, settings: Any, planted: tuple[str, Any]) -> None:
    settings.ROOT_URLCONF = "tests.architecture.leaks"
    route = next(row for row in routes(leaks.urlpatterns) if row.path == _path(planted[0]))
    assert examine(world, route, {}) != []


def _path(pattern: str) -> str:
    import re

    return "/" + re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", pattern)


@pytest.mark.real_weights
def test_a_route_without_a_source_of_ids_fails(world: World) -> None:
    with pytest.raises(AssertionError, match="no source of ids"):
        examine(world, Route("/v1/new/{thing_id}", ("thing_id",)), {})


@pytest.mark.real_weights
def test_the_walk_reaches_what_is_ones_own(world: World) -> None:
    """The control: with A's own ids the same requests are answered."""
    with scope(world.a):
        key = ApiKey.objects.of(world.a).first()
        version = ModelVersion.objects.of(world.a).get()
    assert key is not None
    assert ask(world, "get", f"/v1/models/{version.name}", {})[0] == 200
    assert ask(world, "get", f"/t/{world.a.slug}/keys/", {})[0] == 200
    assert Api(world.key).get("/v1/files").status_code == 200
