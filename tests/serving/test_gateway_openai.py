"""The official client, unmodified, gets embeddings and chat, streaming too, and its own error classes."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.serving.speaking import lifespan

pytestmark = [pytest.mark.real_weights, pytest.mark.asyncio]


async def test_it_works(official: openai.AsyncOpenAI) -> None:
    async with lifespan():
        found = await official.embeddings.create(model="minilm-l6", input=["hello", "world"])
        assert len(found.data[1].embedding) == 384  # asked for as base64 by the client
        answer = await official.chat.completions.create(
            model="smollm2-135m",
            messages=[{"role": "user", "content": "What is the capital of France?"}],
            max_tokens=24,
            temperature=0,
        )
        assert "Paris" in (answer.choices[0].message.content or "")
        stream = await official.chat.completions.create(
            model="smollm2-135m",
            messages=[{"role": "user", "content": "What is the capital of France?"}],
            max_completion_tokens=24,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == answer.choices[0].message.content
    assert chunks[-1].usage == answer.usage


async def test_its_error_classes(official: openai.AsyncOpenAI) -> None:
    async with lifespan():
        with pytest.raises(openai.NotFoundError) as absent:
            await official.embeddings.create(model="nothing", input="x")
        assert absent.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError) as wrong:
            await official.embeddings.create(model="smollm2-135m", input="x")
        assert wrong.value.param == "model"
        with pytest.raises(openai.AuthenticationError):
            await official.with_options(api_key="nonsense").embeddings.create(model="minilm-l6", input="x")


async def test_a_missing_engine_is_a_clear_503(
    official: openai.AsyncOpenAI, settings: Any, tmp_path: Any
) -> None:
    settings.ENGINE_SOCKET, settings.ENGINE_PATIENCE_SECONDS = tmp_path / "nobody.sock", 0.3
    async with lifespan():
        with pytest.raises(openai.InternalServerError) as gone:
            await official.embeddings.create(model="minilm-l6", input="x")
    assert gone.value.status_code == 503
    assert gone.value.response.headers["retry-after"] == "1"
