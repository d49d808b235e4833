"""Bodies are read strictly: each refusal names its parameter and echoes nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

from modeling.serving.gateway_bodies import Classify, Embed, Recommend
from modeling.serving.gateway_chat_body import Chat
from modeling.serving.gateway_fields import parse
from saas.lib.errors import Refusal

USER = {"role": "user", "content": "hello"}


def param(kind: Any, body: Any) -> str | None:
    """The parameter that is refused."""
    with pytest.raises(Refusal) as refusal:
        kind.read(parse(json.dumps(body).encode()))
    assert refusal.value.status == 400
    assert "SECRET" not in str(refusal.value)
    return refusal.value.param


def test_it_works() -> None:
    body = {
        "model": "m",
        "messages": [USER, {"role": "assistant", "content": [{"type": "text", "text": "hi"}]}],
    }
    chat = Chat.read(parse(json.dumps(body | {"stop": "x", "max_tokens": 5, "user": "u", "n": 1}).encode()))
    assert chat.messages[1] == {"role": "assistant", "content": "hi"}
    assert (chat.stop, chat.max_tokens, chat.temperature, chat.stream) == (("x",), 5, 1.0, False)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"\xff",
        b'{"a":NaN}',
        b'{"a":1,"a":2}',
        b"[" * 100_000,
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":1e999}',
        b'{"a":[{"b":-1.5E+400}]}',
    ],
)
def test_bad_json_is_refused(raw: bytes) -> None:
    with pytest.raises(Refusal) as refusal:
        parse(raw)
    assert refusal.value.code == "invalid_json"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"model": None}, "model"),
        ({"model": 7}, "model"),
        ({"model": " "}, "model"),
        ({"inputs": None}, "inputs"),
        ({"inputs": []}, "inputs"),
        ({"inputs": "SECRET"}, "inputs"),
        ({"inputs": ["ok", " "]}, "inputs[1]"),
        ({"inputs": ["SECRET\0"]}, "inputs[0]"),
        ({"inputs": ["\ud800SECRET"]}, "inputs[0]"),
        ({"inputs": [{"text": ["SECRET"]}]}, "inputs[0].text"),
        ({"inputs": ["SECRET" * 20_000]}, "inputs[0]"),
        ({"top_k": 0}, "top_k"),
        ({"top_k": True}, "top_k"),
        ({"abstain_below": 1.5}, "abstain_below"),
        ({"abstain_below": "SECRET"}, "abstain_below"),
        ({"SECRET and spaces": 1}, None),
        ({"temperature": 1}, "temperature"),
    ],
)
def test_classify_refuses(change: dict[str, Any], expected: str | None) -> None:
    assert param(Classify, {"model": "m", "inputs": ["x"]} | change) == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        (
            {"messages": [USER | {"content": [{"type": "image_url", "image_url": "SECRET"}]}]},
            "messages[0].content[0]",
        ),
        ({"n": 2}, "n"),
        ({"logprobs": 1}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"frequency_penalty": 2.5}, "frequency_penalty"),
        ({"logit_bias": {"SECRET": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"temperature": 3}, "temperature"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"seed": 1.5}, "seed"),
    ],
)
def test_chat_refuses(change: dict[str, Any], expected: str | None) -> None:
    body = json.dumps({"model": "m", "messages": [USER]} | change).replace("Infinity", "1e999")
    with pytest.raises(Refusal) as refusal:
        Chat.read(parse(body.encode()))
    assert refusal.value.param == expected
    assert "SECRET" not in str(refusal.value)


def test_embeddings_and_recommend_refuse() -> None:
    assert param(Embed, {"model": "m", "input": [[1, 2]]}) == "input"
    assert param(Embed, {"model": "m", "input": ""}) == "input"
    assert param(Embed, {"model": "m", "input": "x", "encoding_format": "hex"}) == "encoding_format"
    assert param(Recommend, {"model": "m", "history": "x"}) == "history"
    assert param(Recommend, {"model": "m", "history": [1.5]}) == "history[0]"
    assert param(Recommend, {"model": "m", "k": 0}) == "k"
    body = json.dumps({"model": "m", "history": [7, "a"], "user": 5}).encode()
    assert Recommend.read(parse(body)).history == ("7", "a")


@pytest.mark.parametrize("name", ["\ud800", "a\0b", "x" * 100_001])
def test_column_names_are_texts_that_can_be_sent_on(name: str) -> None:
    assert param(Classify, {"model": "m", "inputs": [{"fine": 1}, {name: 1}]}) == "inputs[1]"


def test_unusual_column_names_are_taken() -> None:
    body = {"model": "m", "inputs": [{"": None, "größe in cm": 3, "年龄": "x"}]}
    assert Classify.read(parse(json.dumps(body).encode())).rows()[0]["年龄"] == "x"
