"""The official client gets logprobs and answers by schema, whole and streamed, and clear refusals."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from pydantic import BaseModel, Field

from tests.serving.speaking import lifespan

pytestmark = [pytest.mark.real_weights, pytest.mark.asyncio]
ASK: dict[str, Any] = {
    "model": "smollm2-135m",
    "messages": [{"role": "user", "content": "What is the capital of France? Answer in JSON."}],
    "temperature": 0,
}


class Capital(BaseModel):
    country: str = Field(max_length=20)
    is_large: bool


def limited(maximum: int = 12) -> dict[str, Any]:
    names = ["city", "sure"]
    properties = {"city": {"type": "string", "maxLength": maximum}, "sure": {"type": "boolean"}}
    schema = {"type": "object", "properties": properties, "required": names, "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": "capital", "schema": schema, "strict": True}}


async def test_it_works(official: openai.AsyncOpenAI) -> None:
    async with lifespan():
        answer = await official.chat.completions.create(**ASK, max_tokens=60, response_format=limited())
        pieces = await official.chat.completions.create(
            **ASK, max_tokens=60, response_format=limited(), stream=True
        )
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in pieces])
        free = await official.chat.completions.create(
            **ASK, max_tokens=3, response_format={"type": "json_object"}
        )
    assert answer.choices[0].finish_reason == "stop"
    found = json.loads(answer.choices[0].message.content or "")
    assert set(found) == {"city", "sure"}
    assert len(found["city"]) <= 12
    assert text == answer.choices[0].message.content
    assert (free.choices[0].message.content or "").startswith("{")
    assert free.choices[0].finish_reason == "length"


async def test_the_clients_own_parsing(official: openai.AsyncOpenAI) -> None:
    async with lifespan():
        answer = await official.chat.completions.parse(
            **ASK | {"temperature": 1}, max_tokens=300, seed=4, response_format=Capital, logit_bias={28: -5}
        )
    assert isinstance(answer.choices[0].message.parsed, Capital)


async def test_logprobs(official: openai.AsyncOpenAI) -> None:
    async with lifespan():
        answer = await official.chat.completions.create(**ASK, max_tokens=6, logprobs=True, top_logprobs=3)
        stream = await official.chat.completions.create(
            **ASK, max_tokens=6, logprobs=True, top_logprobs=3, stream=True
        )
        chunks = [chunk async for chunk in stream]
        plain = await official.chat.completions.create(**ASK, max_tokens=2)
    told = answer.choices[0].logprobs
    assert told is not None
    tokens = told.content or []
    assert len(tokens) == 6
    assert b"".join(bytes(one.bytes or []) for one in tokens).decode() == answer.choices[0].message.content
    for one in tokens:
        assert one.logprob == one.top_logprobs[0].logprob == max(other.logprob for other in one.top_logprobs)
        assert one.token == one.top_logprobs[0].token  # temperature 0 takes the likeliest
        assert len(one.top_logprobs) == 3
    streamed = [
        one
        for chunk in chunks
        if chunk.choices[0].logprobs
        for one in chunk.choices[0].logprobs.content or []
    ]
    assert [one.token for one in streamed] == [one.token for one in tokens]
    assert plain.choices[0].logprobs is None


@pytest.mark.parametrize(
    ("wish", "param"),
    [
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"$ref": "#"}},
                }
            },
            None,
        ),
        ({"response_format": {"type": "json_schema"}}, None),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"type": "array", "uniqueItems": True}},
                }
            },
            None,
        ),
        ({"logit_bias": {"49152": 1}}, "logit_bias"),
        ({"top_logprobs": 2}, "top_logprobs"),
    ],
)
async def test_what_cannot_be_done_is_a_400(
    official: openai.AsyncOpenAI, wish: dict[str, Any], param: str | None
) -> None:
    async with lifespan():
        with pytest.raises(openai.BadRequestError) as wrong:
            await official.chat.completions.create(**ASK, max_tokens=2, **wish)
    assert wrong.value.param == (param or "response_format")
