"""The official openai package, sync and async, over HTTP: predictions, streams, batches, uploads, retries, errors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any, Literal

import httpx
import numpy as np
import openai
import pydantic
import pytest

from saas.lib import valkey
from tenants.models import Tenant
from tests.modeling.test_files_api import CLINIC, inspect
from tests.serving.batching import jsonl, request_line, run_all
from tests.serving.live_site import live_site, tiny_engine
from tests.serving.speaking import in_thread

pytestmark = pytest.mark.real_weights  # the tokenizer of the chat base
TALK: list[Any] = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with (
        tiny_engine(tmp_path_factory.mktemp("live")) as engine,
        live_site(engine.socket) as found,
    ):
        yield found


@pytest.fixture
def seen() -> list[int]:
    """The status of every answer that the client got, retried ones too."""
    return []


@pytest.fixture
def client(address: str, api: Any, seen: list[int]) -> Iterator[openai.OpenAI]:
    hooks = {"response": [lambda response: seen.append(response.status_code)]}
    with httpx.Client(trust_env=False, timeout=30, event_hooks=hooks) as http:
        yield openai.OpenAI(base_url=f"{address}/v1", api_key=api.key, max_retries=0, http_client=http)


def with_key(client: openai.OpenAI, key: str) -> openai.OpenAI:
    return client.with_options(api_key=key)


def test_embeddings_as_numbers_and_as_base64(client: openai.OpenAI) -> None:
    packed = client.embeddings.create(model="minilm-l6", input=["word1 word2", "word3"])
    plain = client.embeddings.create(
        model="minilm-l6", input=["word1 word2", "word3"], encoding_format="float"
    )
    assert np.allclose(
        [one.embedding for one in packed.data], [one.embedding for one in plain.data], atol=1e-6
    )
    assert [one.index for one in plain.data] == [0, 1]
    assert packed.usage.total_tokens == plain.usage.total_tokens > 0


def test_chat_whole_and_streamed(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "smollm2-135m", "messages": TALK, "max_tokens": 8, "temperature": 0}
    whole = client.chat.completions.create(**asked)
    assert whole.choices[0].finish_reason in ("length", "stop")
    assert whole.usage is not None
    with client.chat.completions.stream(**asked, stream_options={"include_usage": True}) as stream:
        stream.until_done()
        final = stream.current_completion_snapshot
    assert final.choices[0].message.content == whole.choices[0].message.content
    assert final.usage == whole.usage


class Triage(pydantic.BaseModel):
    """What a structured answer must be."""

    kind: Literal["urgent", "routine"]
    is_sure: bool


def test_answers_by_a_pydantic_model(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(
        model="smollm2-135m", messages=TALK, response_format=Triage, max_tokens=120, temperature=0
    )
    assert isinstance(answer.choices[0].message.parsed, Triage)


def test_headers_of_a_raw_answer(client: openai.OpenAI) -> None:
    raw = client.embeddings.with_raw_response.create(model="minilm-l6", input="word1")
    assert raw.parse().data
    assert str(raw.request_id).startswith("req_")
    assert int(raw.headers["openai-processing-ms"]) >= 0
    assert raw.headers["x-ratelimit-limit-requests"] == "600"
    assert int(raw.headers["x-ratelimit-remaining-requests"]) < 600
    assert client.models.with_raw_response.list().headers["x-request-id"].startswith("req_")


def test_models(client: openai.OpenAI) -> None:
    names = [one.id for one in client.models.list()]
    assert "minilm-l6" in names
    assert client.models.retrieve("minilm-l6").owned_by == "cloister"


def test_a_file_in_parts(client: openai.OpenAI, acme: Tenant) -> None:
    done = client.uploads.upload_file_chunked(
        file=CLINIC,
        filename="notes.csv",
        bytes=len(CLINIC),
        mime_type="text/csv",
        purpose="fine-tune",
        part_size=4096,
        md5=hashlib.md5(CLINIC).hexdigest(),
    )
    assert done.status == "completed"
    assert done.file is not None
    inspect(acme, done.file.id)
    assert client.files.wait_for_processing(done.file.id).status == "processed"
    assert client.files.content(done.file.id).content == CLINIC
    begun = client.uploads.create(filename="a.csv", purpose="fine-tune", bytes=9, mime_type="text/csv")
    client.uploads.parts.create(begun.id, data=b"a,b\n1,2\n9")
    assert client.uploads.cancel(begun.id).status == "cancelled"
    with pytest.raises(openai.ConflictError):
        client.uploads.complete(begun.id, part_ids=["part_any"])


def test_batches(client: openai.OpenAI) -> None:
    content = jsonl([request_line(number) for number in range(6)])
    file = client.files.create(file=("requests.jsonl", content), purpose="batch")
    assert file.status == "processed"
    made = client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/embeddings",
        completion_window="24h",
        metadata={"night": "monday"},
    )
    assert (made.status, made.metadata) == ("validating", {"night": "monday"})
    run_all()
    done = client.batches.retrieve(made.id)
    assert done.status == "completed"
    assert done.request_counts is not None
    assert (done.request_counts.total, done.request_counts.completed) == (6, 6)
    assert done.output_file_id is not None
    lines = client.files.content(done.output_file_id).text.splitlines()
    assert [json.loads(line)["custom_id"] for line in lines] == [f"line {number}" for number in range(6)]
    with pytest.raises(openai.ConflictError):
        client.batches.cancel(made.id)
    second = client.batches.create(input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h")
    assert client.batches.cancel(second.id).status == "cancelling"
    run_all()
    assert [one.id for one in client.batches.list(limit=1)] == [second.id, made.id]
    assert client.batches.retrieve(second.id).status == "cancelled"


def test_errors_have_the_clients_classes(client: openai.OpenAI, people: Any, acme: Tenant) -> None:
    def embed(who: openai.OpenAI, **changes: Any) -> Any:
        return who.embeddings.create(**({"model": "minilm-l6", "input": "x"} | changes))

    with pytest.raises(openai.AuthenticationError):
        embed(with_key(client, "ck_live_wrong"))
    with pytest.raises(openai.PermissionDeniedError) as forbidden:
        embed(with_key(client, people.key(acme, "files")))
    assert forbidden.value.code == "missing_scope"
    with pytest.raises(openai.NotFoundError) as absent:
        embed(client, model="nobodys")
    assert (absent.value.code, absent.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as wrong:
        embed(client, input="")
    assert wrong.value.param == "input"
    file = client.files.create(file=("requests.jsonl", jsonl([request_line(1)])), purpose="batch")
    asked: dict[str, Any] = {"endpoint": "/v1/embeddings", "completion_window": "24h"}
    headers = {"Idempotency-Key": "once"}
    client.batches.create(input_file_id=file.id, **asked, extra_headers=headers)
    with pytest.raises(openai.UnprocessableEntityError) as reused:
        client.batches.create(input_file_id=file.id, **asked, metadata={"a": "b"}, extra_headers=headers)
    assert reused.value.code == "idempotency_key_reused"
    with pytest.raises(openai.APITimeoutError):
        embed(client.with_options(timeout=0.0005))
    run_all()


def empty_bucket(tenant: Tenant) -> None:
    """No request is left, and by the bucket's own clock one comes back every tenth of a second."""
    name = f"t:{tenant.pk}:bucket"
    link = valkey.client()
    seconds, micros = link.time()
    link.hset(name, mapping={"requests": 0, "tokens": 0, "at": seconds * 1000 + micros // 1000 + 800})


def test_a_refused_client_waits_and_tries_again(client: openai.OpenAI, acme: Tenant, seen: list[int]) -> None:
    client.embeddings.create(model="minilm-l6", input="word1")
    empty_bucket(acme)
    with pytest.raises(openai.RateLimitError) as refused:
        client.embeddings.create(model="minilm-l6", input="word1")
    assert refused.value.code == "rate_limit_exceeded"
    assert int(refused.value.response.headers["retry-after"]) >= 1
    empty_bucket(acme)
    seen.clear()
    found = client.with_options(max_retries=3).embeddings.create(model="minilm-l6", input="word1")
    assert found.data
    assert seen[0] == 429
    assert seen[-1] == 200


@pytest.mark.asyncio
async def test_async(address: str, api: Any) -> None:
    async with (
        httpx.AsyncClient(trust_env=False, timeout=30) as http,
        openai.AsyncOpenAI(
            base_url=f"{address}/v1", api_key=api.key, max_retries=0, http_client=http
        ) as client,
    ):
        found = await client.embeddings.create(model="minilm-l6", input="word1 word2")
        assert len(found.data[0].embedding) == 32
        stream = await client.chat.completions.create(
            model="smollm2-135m", messages=TALK, max_tokens=6, temperature=0, stream=True
        )
        chunks = [chunk async for chunk in stream]
        assert chunks[-1].choices[0].finish_reason in ("length", "stop")
        file = await client.files.create(file=("r.jsonl", jsonl([request_line(1)])), purpose="batch")
        made = await client.batches.create(
            input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h"
        )
        assert [one.id async for one in client.batches.list(limit=1)] == [made.id]
        assert (await client.batches.cancel(made.id)).status == "cancelling"
        await in_thread(run_all)
        upload = await client.uploads.create(filename="a", purpose="batch", bytes=3, mime_type="text/plain")
        part = await client.uploads.parts.create(upload.id, data=b"abc")
        assert (await client.uploads.complete(upload.id, part_ids=[part.id])).status == "completed"
