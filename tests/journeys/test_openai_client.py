"""The official openai package, unmodified, against a live server: files, fine-tuning jobs, events, cancel, models."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
import uvicorn
from django.db import connections

from modeling.actions import inspection
from modeling.models import File
from saas.processes import free_port
from tenants.models import Tenant
from tenants.scope import scope
from tests.core.tiny_text import make_base
from tests.modeling.clinic import train, words_csv


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The whole site under uvicorn, in a thread, with this run's database."""
    from saas.asgi import application

    port = free_port()
    config = uvicorn.Config(application, host="127.0.0.1", port=port, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.02)
    assert server.started
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)
    connections.close_all()


@pytest.fixture
def client(address: str, api: Any) -> Iterator[openai.OpenAI]:
    # The package's own transport; only proxies of the machine are left aside.
    http = httpx.Client(trust_env=False, timeout=30)
    yield openai.OpenAI(base_url=f"{address}/v1", api_key=api.key, max_retries=0, http_client=http)
    http.close()


@pytest.fixture
def tiny(tmp_path: Any, settings: Any) -> None:
    make_base(tmp_path)
    settings.MODELS_DIR = tmp_path


def inspected(tenant: Tenant, file_id: str) -> None:
    with scope(tenant):
        pk = File.objects.of(tenant).get(public_id=file_id).pk
    inspection.inspect_file(tenant.pk, pk)


def test_from_file_to_model(client: openai.OpenAI, acme: Tenant, tiny: None) -> None:
    content = words_csv(700)
    file = client.files.create(file=("words.csv", content), purpose="fine-tune")
    assert file.id.startswith("file-")
    assert file.status == "uploaded"
    inspected(acme, file.id)
    assert client.files.retrieve(file.id).status == "processed"
    assert [one.id for one in client.files.list()] == [file.id]
    assert client.files.content(file.id).read().splitlines()[0] == b"text,label"

    job = client.fine_tuning.jobs.create(
        model="minilm-l6", training_file=file.id, suffix="words", extra_body={"privacy": {"epsilon": 3}}
    )
    assert job.status == "queued"
    assert job.object == "fine_tuning.job"
    assert job.privacy["epsilon"] == 3  # type: ignore[attr-defined]
    train(acme, job.id)
    done = client.fine_tuning.jobs.retrieve(job.id)
    assert done.status == "succeeded"
    assert done.fine_tuned_model is not None
    assert done.finished_at is not None
    assert done.finished_at >= done.created_at
    events = list(client.fine_tuning.jobs.list_events(job.id, limit=5))
    assert [event.seq for event in events] == list(range(len(events), 0, -1))  # type: ignore[attr-defined]
    assert any(event.type == "metrics" for event in events)
    checkpoints = list(client.fine_tuning.jobs.checkpoints.list(job.id))
    assert checkpoints[0].fine_tuned_model_checkpoint == done.fine_tuned_model
    assert [one.step_number for one in checkpoints] == sorted(
        (c.step_number for c in checkpoints), reverse=True
    )

    model = client.models.retrieve(done.fine_tuned_model)
    assert model.owned_by == acme.slug
    names = [one.id for one in client.models.list()]
    assert names == [done.fine_tuned_model, "minilm-l6", "smollm2-135m", "tabular"]
    with pytest.raises(openai.ConflictError):
        client.models.delete(done.fine_tuned_model)  # its endpoint still answers
    httpx.delete(
        f"{client.base_url}endpoints/words",
        headers={"authorization": f"Bearer {client.api_key}"},
        trust_env=False,
    ).raise_for_status()
    assert client.models.delete(done.fine_tuned_model).deleted
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve(done.fine_tuned_model)
    assert client.files.delete(file.id).deleted


def test_cancel_and_pages(client: openai.OpenAI, acme: Tenant, tiny: None) -> None:
    file = client.files.create(file=("words.csv", words_csv(700)), purpose="fine-tune")
    inspected(acme, file.id)
    spec = {"model": "minilm-l6", "training_file": file.id, "extra_body": {"privacy": {"epsilon": 1}}}
    ids = [client.fine_tuning.jobs.create(**spec).id for _number in range(3)]
    assert [job.id for job in client.fine_tuning.jobs.list(limit=1)] == ids[::-1]  # three pages
    assert client.fine_tuning.jobs.cancel(ids[0]).status == "cancelled"
    with pytest.raises(openai.ConflictError) as caught:
        client.fine_tuning.jobs.cancel(ids[0])
    assert caught.value.code == "job_ended"


def test_errors_are_the_clients_own_classes(client: openai.OpenAI, address: str) -> None:
    with pytest.raises(openai.NotFoundError):
        client.fine_tuning.jobs.retrieve("ftjob-" + "0" * 24)
    with pytest.raises(openai.NotFoundError):
        client.fine_tuning.jobs.create(model="minilm-l6", training_file="file-" + "0" * 24)
    with pytest.raises(openai.BadRequestError) as caught:
        client.fine_tuning.jobs.list(limit=0)
    assert caught.value.param == "limit"
    stranger = openai.OpenAI(
        base_url=f"{address}/v1",
        api_key="ck_live_wrong",
        max_retries=0,
        http_client=httpx.Client(trust_env=False),
    )
    with pytest.raises(openai.AuthenticationError):
        stranger.models.list()
