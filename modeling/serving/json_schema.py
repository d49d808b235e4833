"""Answers that follow a JSON schema: which tokens may come next, by llguidance, within limits on what a schema costs.

Separators are fixed (", " and ": ") and no other whitespace is allowed, so an answer cannot go on in blanks for ever.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from modeling.serving.schema_limits import objection
from modeling.serving.wire import EngineRefusal

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

COMPILE_SECONDS = 5.0
ANY_OBJECT = {"type": "object"}
_MESSAGE_CHARACTERS = 300
# Fuel is spent at about 50,000 a millisecond when a grammar is read, at 14,000 when a mask is made: while one is
# made, all conversations wait.
_LIMITS = LLParserLimits(
    initial_lexer_fuel=500_000,
    step_lexer_fuel=50_000,
    step_max_items=20_000,
    max_lexer_states=20_000,
    max_grammar_size=50_000,
    precompute_large_lexemes=False,
    verbose_errors=False,
)


def refusal(sentence: str) -> EngineRefusal:
    """A schema that is not followed, and why."""
    return EngineRefusal("bad_schema", f"response_format: {sentence[:_MESSAGE_CHARACTERS]}")


class Constraint:
    """One answer on its way through its grammar. Used by one thread at a time."""

    def __init__(self, matcher: LLMatcher, vocabulary: int) -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary

    def allowed(self) -> torch.Tensor:
        """Which tokens may come next [vocabulary] bool; raises EngineRefusal when that takes too long to find."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        self._check()
        return torch.from_numpy(np.unpackbits(bits, count=self._vocabulary, bitorder="little")).bool()

    def take(self, token: int) -> bool:
        """Go on with a token; whether the answer is complete and nothing can follow. Raises EngineRefusal."""
        self._matcher.consume_token(token)
        self._check()
        return bool(self._matcher.is_stopped())

    def _check(self) -> None:
        if self._matcher.is_error():
            raise refusal("The schema is too complex to follow.")


class Grammars:
    """Reads schemas for one tokenizer, in a thread of their own: a slow one delays only other schemas."""

    def __init__(self, folder: Path, vocabulary: int, ends: Iterable[int]) -> None:
        self._file = folder / "tokenizer.json"
        self._vocabulary = vocabulary
        self._ends = sorted(ends)
        self._tokens: LLTokenizer | None = None
        self._reading = threading.Lock()
        self._thread = ThreadPoolExecutor(1, "grammars")

    async def constraint(self, wanted: Mapping[str, Any]) -> Constraint:
        """For an OpenAI `response_format` of json_object or json_schema; raises EngineRefusal `bad_schema`."""
        schema = _schema(wanted)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._thread, self._tokenizer)
        try:
            async with asyncio.timeout(COMPILE_SECONDS):
                return await loop.run_in_executor(self._thread, self.compile, schema)
        except TimeoutError as error:
            raise refusal("The schema takes too long to read.") from error

    def compile(self, schema: dict[str, Any]) -> Constraint:
        """A fresh constraint; raises EngineRefusal `bad_schema` with what is wrong about the schema."""
        options: JsonCompileOptions = {
            "whitespace_flexible": False,
            "item_separator": ", ",
            "key_separator": ": ",
            "coerce_one_of": False,
            "lenient": False,
        }
        try:
            grammar = LLMatcher.grammar_from_json_schema(schema, overrides=options)
        except ValueError as error:
            raise refusal(str(error)) from error
        matcher = LLMatcher(self._tokenizer(), grammar, log_level=0, limits=_LIMITS)
        if not matcher.is_error():
            matcher.compute_bitmask()  # some of what is wrong shows only here
        if matcher.is_error():
            raise refusal(matcher.get_error().partition("\n<")[0])
        return Constraint(matcher, self._vocabulary)

    def _tokenizer(self) -> LLTokenizer:
        with self._reading:
            if self._tokens is None:
                text = self._file.read_text()
                try:
                    self._tokens = LLTokenizer(text, n_vocab=self._vocabulary, eos_token=self._ends)
                except ValueError as error:
                    raise refusal("This model cannot follow a schema.") from error
            return self._tokens

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _schema(wanted: Mapping[str, Any]) -> dict[str, Any]:
    named = wanted.get("json_schema", {})
    if not isinstance(named, Mapping) or wanted.get("type") not in ("json_object", "json_schema"):
        raise refusal("The type is neither json_object nor json_schema.")
    schema: dict[str, Any] = (
        ANY_OBJECT if wanted["type"] == "json_object" else named.get("schema", ANY_OBJECT)
    )
    if (sentence := objection(schema)) is not None:
        raise refusal(sentence)
    return schema
