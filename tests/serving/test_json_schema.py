"""Whatever a grammar lets through is valid; schemas that cannot be followed, or cost too much, are refused in words."""

from __future__ import annotations

import json
import random
from typing import Any

import jsonschema
import pytest

from modeling.core import bases
from modeling.serving.json_schema import Grammars
from modeling.serving.wire import EngineRefusal
from tests.bench.json_answers import SCHEMAS
from tests.serving.made import MODELS

pytestmark = pytest.mark.real_weights
END, OVER, VOCABULARY = 2, 0, 49_152


@pytest.fixture(scope="module")
def grammars() -> Grammars:
    return Grammars(bases.path(MODELS, "smollm2-135m"), VOCABULARY, (END, OVER))


def wanted(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


def babble(grammars: Grammars, schema: dict[str, Any], seed: int) -> str:
    """An answer of tokens drawn blindly from those that are allowed."""
    from tokenizers import Tokenizer

    chance = random.Random(seed)
    tokenizer = Tokenizer.from_file(str(bases.path(MODELS, "smollm2-135m") / "tokenizer.json"))
    constraint = grammars.compile(schema)
    said: list[int] = []
    while len(said) < 400:
        token = chance.choice(constraint.allowed().nonzero()[:, 0].tolist())
        if token in (END, OVER):
            break
        said.append(token)
        if constraint.take(token):
            break
    return str(tokenizer.decode(said))


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_it_works(grammars: Grammars, name: str) -> None:
    _, schema = SCHEMAS[name]
    formats = jsonschema.FormatChecker()
    for seed in range(5):
        answer = json.loads(babble(grammars, schema, seed))
        assert not list(jsonschema.Draft202012Validator(schema, format_checker=formats).iter_errors(answer))


@pytest.mark.asyncio
async def test_an_answer_cannot_go_on_in_blanks(grammars: Grammars) -> None:
    constraint = await grammars.constraint({"type": "json_object"})
    assert constraint.allowed()[grammar_token("{")]
    assert not constraint.allowed()[grammar_token(" ")]
    assert not constraint.take(grammar_token("{"))
    assert not constraint.allowed()[grammar_token("\n")]
    assert constraint.take(grammar_token("}"))


def grammar_token(text: str) -> int:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(bases.path(MODELS, "smollm2-135m") / "tokenizer.json"))
    (token,) = tokenizer.encode(text, add_special_tokens=False).ids
    return int(token)


DEEP: dict[str, Any] = {"type": "string"}
for _ in range(20):
    DEEP = {"type": "object", "properties": {"a": DEEP}}


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "objekt"}, "Invalid type"),
        ({"$ref": "https://example.com/x.json"}, "does not fetch"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"oneOf": [{"type": "string"}, {"maxLength": 5}]}, "oneOf"),
        ({"type": "string", "pattern": "^(?=a)b$"}, "not supported"),
        ({"enum": []}, "Unsatisfiable"),
        ({"$ref": "#"}, "NoExtension"),
        (DEEP, "levels deep"),
        ({"enum": ["word" * 20_000]}, "larger than"),
        ({"type": "integer", "maximum": 2**70}, "63 bits"),
        ({"enum": [{"a": [-(2**63)]}]}, "63 bits"),
        ("type", "must be an object"),
    ],
)
async def test_what_cannot_be_followed_is_refused(grammars: Grammars, schema: Any, words: str) -> None:
    with pytest.raises(EngineRefusal, match=words) as found:
        await grammars.constraint(wanted(schema))
    assert found.value.code == "bad_schema"
    assert found.value.message.startswith("response_format: ")
    assert len(found.value.message) < 330


@pytest.mark.asyncio
async def test_a_schemas_own_options_do_not_count(grammars: Grammars) -> None:
    options = {"whitespace_flexible": True, "whitespace_pattern": " *", "lenient": True}
    constraint = await grammars.constraint(wanted({"type": "object", "x-guidance": options}))
    assert not constraint.allowed()[grammar_token(" ")]
    with pytest.raises(EngineRefusal):
        await grammars.constraint(wanted({"type": "array", "uniqueItems": True, "x-guidance": options}))


NASTY = (
    "^(a|aa)+(b{1,500}c{1,500}){1,100}$",
    "^(([a-z]+)*[0-9]?)*$",
    "^(x{1,50}y{1,50}){1,50}.*(x|y){200}$",
)


@pytest.mark.parametrize("pattern", NASTY)
def test_patterns_that_explode_elsewhere_are_followed(grammars: Grammars, pattern: str) -> None:
    constraint = grammars.compile({"type": "string", "pattern": pattern})
    for _ in range(8):
        allowed = constraint.allowed()
        assert 0 < int(allowed.sum()) < VOCABULARY
        constraint.take(int(allowed.nonzero()[-1]))


def test_a_pattern_that_explodes_here_too_is_refused(grammars: Grammars) -> None:
    constraint = grammars.compile({"type": "string", "pattern": "^.*(a|b).{300}$"})
    with pytest.raises(EngineRefusal, match="too complex"):
        for _ in range(20):
            constraint.take(int(constraint.allowed().nonzero()[-1]))
