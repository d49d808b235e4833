"""Metrics for operators: what requests did, what the engines hold; parseable, cheap, and silent about tenants."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from modeling.serving.engine_metrics import HISTOGRAMS
from modeling.serving.gateway_metrics import EVENTS, METRICS, GatewayMetrics, Seen
from tenants.models import Tenant
from tests.serving.made import EngineProcess, head_parts
from tests.serving.speaking import client, in_thread, leave_after, lifespan, make_version

pytestmark = pytest.mark.asyncio
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture
def port(settings: Any, monkeypatch: pytest.MonkeyPatch) -> int:
    settings.METRICS_PORT = free_port()
    for name in ("requests", "latency", "first_token", "tokens", "predictions"):
        getattr(METRICS, name).clear()
    monkeypatch.setattr(METRICS, "events", dict.fromkeys(EVENTS, 0))
    return int(settings.METRICS_PORT)


async def scrape(port: int) -> tuple[str, Samples]:
    """The text, and every sample by name and labels."""
    async with httpx.AsyncClient() as http:
        for _ in range(50):
            try:
                answer = await http.get(f"http://127.0.0.1:{port}/metrics")
                break
            except httpx.ConnectError:
                await asyncio.sleep(0.02)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found: Samples = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, "a sample twice"
            found[key] = sample.value
    return answer.text, found


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


@pytest.mark.real_weights
async def test_requests_are_counted_by_route_class_and_outcome(
    settings: Any, engine: EngineProcess, people: Any, acme: Tenant, port: int
) -> None:
    settings.ENGINE_SOCKET = engine.socket
    key = await in_thread(people.key, acme, "predict")
    version = await in_thread(make_version, acme, *head_parts(5, 1))
    chat = {"model": "smollm2-135m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
    async with lifespan(), client(key) as http:
        good = {"model": version.name, "inputs": ["hello", "there"]}
        read = 0
        for _ in range(3):
            read += (await http.post("/v1/classify", json=good)).json()["usage"]["prompt_tokens"]
        assert (await http.post("/v1/classify", json=good | {"model": "nobody"})).status_code == 404
        await http.post("/v1/chat/completions", json=chat | {"stream": True})
        await leave_after(key, "/v1/chat/completions", chat | {"stream": True, "max_tokens": 400}, events=3)
        text, samples = await scrape(port)
    ours = {"route": "classify", "model_class": "head"}
    assert value(samples, "cloister_requests_total", **ours, status="2xx") == 3
    assert value(samples, "cloister_requests_total", route="classify", model_class="none", status="4xx") == 1
    assert value(samples, "cloister_requests_total", route="chat", model_class="base", status="gone") == 1
    assert value(samples, "cloister_request_seconds_count", **ours) == 3
    assert value(samples, "cloister_request_seconds_bucket", **ours, le="+Inf") == 3
    assert 0 < value(samples, "cloister_request_seconds_sum", **ours) < 60
    assert value(samples, "cloister_first_token_seconds_count", model_class="base") == 1
    assert value(samples, "cloister_predictions_total", model_class="head") == 6
    assert value(samples, "cloister_tokens_total", model_class="head", direction="in") == read
    assert value(samples, "cloister_tokens_total", model_class="base", direction="out") >= 4 + 2
    assert value(samples, "cloister_engine_up", engine="engine.sock") == 1
    assert value(samples, "cloister_engine_batches_total", engine="engine.sock", base="minilm-l6") >= 3
    assert (
        value(samples, "cloister_cache_misses_total", engine="engine.sock", base="minilm-l6", cache="slots")
        >= 1
    )
    assert (
        value(samples, "cloister_cache_hits_total", engine="engine.sock", base="minilm-l6", cache="slots")
        >= 2
    )
    for name in HISTOGRAMS:
        counted = value(samples, f"cloister_engine_{name}_count", engine="engine.sock", base="minilm-l6")
        assert counted == value(
            samples, "cloister_engine_batches_total", engine="engine.sock", base="minilm-l6"
        )
    assert value(samples, "cloister_revocation_link_up") == 1
    assert value(samples, "cloister_jobs", state="queued") >= 0
    assert value(samples, "cloister_batch_files", state="in_progress") >= 0
    for secret in (str(acme.pk), acme.slug, acme.name, version.name, version.short_id, version.job.public_id):
        assert secret not in text


async def test_without_an_engine_the_gateway_still_tells(settings: Any, port: int, tmp_path: Any) -> None:
    settings.ENGINE_SOCKET = tmp_path / "nobody.sock"
    async with lifespan(), client("x") as http:
        assert (await http.post("/v1/embeddings", json={})).status_code == 401
        _, samples = await scrape(port)
    assert value(samples, "cloister_engine_up", engine="nobody.sock") == 0
    assert (
        value(samples, "cloister_requests_total", route="embeddings", model_class="none", status="4xx") == 1
    )


async def test_two_gateways_on_one_port(port: int, caplog: pytest.LogCaptureFixture) -> None:
    """The second says that it has no metrics, and serves."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        async with lifespan(), client("x") as http:
            assert (await http.post("/v1/embeddings", json={})).status_code == 401
    assert f"127.0.0.1:{port}" in caplog.text
    assert "METRICS_PORT" in caplog.text


async def test_the_public_address_has_no_metrics(port: int, people: Any, acme: Tenant) -> None:
    from saas.asgi import application as public

    async with lifespan(), client("x") as http:
        assert (await http.get("/metrics")).status_code == 404  # the gateway as a process of its own
        transport = httpx.ASGITransport(app=public)
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as pages:
            assert (await pages.get("/metrics")).status_code == 404


async def test_the_port_answers_nothing_else(port: int) -> None:
    async with lifespan():
        await scrape(port)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            assert (await http.get("/")).status_code == 404
            assert (await http.post("/metrics", content=b"x")).status_code == 404
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"x" * 100_000)  # no end of the head
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


async def test_it_is_off_unless_set(settings: Any) -> None:
    assert settings.METRICS_PORT == 0
    assert settings.METRICS_HOST == "127.0.0.1"


async def test_a_stream_that_breaks_counts_as_failed() -> None:
    seen = Seen(status=200)
    assert seen.outcome == "2xx"
    seen.status = 503
    assert seen.outcome == "5xx"
    assert [Seen(status=status).outcome for status in (0, 429, 404)] == ["gone", "429", "4xx"]


async def test_a_counter_that_nobody_declared_is_a_bug() -> None:
    metrics = GatewayMetrics()
    metrics.count("shadow_dropped", 2)
    assert metrics.copy().events["shadow_dropped"] == 2
    with pytest.raises(KeyError):
        metrics.count("not an event")
