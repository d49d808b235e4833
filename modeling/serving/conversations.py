"""One chat answer under way: what was asked for, what was said so far, and what of it goes to the asker."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from tokenizers import Tokenizer

from modeling.serving.asks import Ask
from modeling.serving.json_schema import Constraint
from modeling.serving.prefixes import PrefixKey
from modeling.serving.sampling import Likely, Sampler, Sampling
from modeling.serving.text_stream import TextStream, token_bytes
from modeling.serving.tunings import Tuning
from modeling.serving.wire import EngineRefusal

MAX_TOP_LOGPROBS = 20
MAX_BIASES = 300
_ROLES = ("system", "user", "assistant")

Part = dict[str, Any]


@dataclass(slots=True, eq=False)
class Conversation:
    """One answer under way. `answer` resolves to its end, or is cancelled when nobody listens any more."""

    prompt: list[int]
    sampling: Sampling
    sampler: Sampler
    text: TextStream
    tuning: Tuning
    answer: asyncio.Future[Part]
    deadline: float
    opening: PrefixKey | None = None  # kept for the tenant's next conversation; None: not worth it
    begun_at: int = 0  # the prefixes' purges when it began
    constraint: Constraint | None = None
    parts: asyncio.Queue[Part | None] = field(default_factory=asyncio.Queue)
    unsent: list[Likely] = field(default_factory=list)  # tokens whose text is held back
    filled: int = 0  # tokens in the cache
    made: int = 0  # tokens sampled, the end token not counted
    last: int = 0
    finish: str = ""  # "" while it runs; then "stop" or "length"
    failure: EngineRefusal | None = None

    @property
    def cost(self) -> int:
        """Tokens to read before the first one comes."""
        return len(self.prompt)

    @property
    def is_over(self) -> bool:
        """Nothing more is to be computed for it."""
        return bool(self.finish) or self.failure is not None or self.answer.done()

    def say(self, scores: torch.Tensor, ends: frozenset[int]) -> str:
        """Choose the next token from scores [vocabulary]; the text that is certain now. On the compute thread."""
        try:
            return self._said(scores, ends)
        except EngineRefusal as refusal:
            self.failure = refusal
            return ""

    def _said(self, scores: torch.Tensor, ends: frozenset[int]) -> str:
        allowed = None if self.constraint is None else self.constraint.allowed()
        self.last = self.sampler.pick(scores, allowed)
        if self.last in ends:
            self.finish = "stop"
            return self.text.finish()
        self.made += 1
        if self.sampling.logprobs is not None:
            self.unsent.append(self.sampler.likely(scores, self.last))
        text = self.text.feed(self.last)
        is_complete = self.constraint is not None and self.constraint.take(self.last)
        if self.text.stopped:
            self.finish = "stop"
            self.unsent = self.unsent if text else []
        elif is_complete or self.made >= self.sampling.max_tokens:
            self.finish = "stop" if is_complete else "length"
            text += self.text.finish()
        return text

    def deliver(self, text: str, tokenizer: Tokenizer) -> None:
        """Queue what is new for the asker, and the end when it has come. On the event loop."""
        if self.answer.done():
            return
        if self.failure is not None:
            self.answer.set_exception(self.failure)
            return
        if text or (self.finish and self.unsent):
            part: Part = {"text": text, "tokens": self.made, "prompt_tokens": len(self.prompt)}
            if self.sampling.logprobs is not None:
                part["logprobs"] = [_told(tokenizer, one) for one in self.unsent]
                self.unsent = []
            self.parts.put_nowait(part)
        if self.finish:
            usage = {"prompt_tokens": len(self.prompt), "completion_tokens": self.made}
            self.answer.set_result({"finish": self.finish, **usage})


def _told(tokenizer: Tokenizer, one: Likely) -> dict[str, Any]:
    """A token's logprob as OpenAI writes it."""
    others = [_word(tokenizer, other) for other in one.others]
    return _word(tokenizer, one) | {"top_logprobs": others}


def _word(tokenizer: Tokenizer, one: Likely) -> dict[str, Any]:
    given = token_bytes(tokenizer, one.token)
    return {"token": given.decode(errors="replace"), "bytes": list(given), "logprob": one.logprob}


def read_messages(ask: Ask) -> list[Mapping[str, str]]:
    """The messages of a request; raises EngineRefusal `bad_request`."""
    messages = ask.body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise EngineRefusal("bad_request", "messages is not a list with at least one message.")
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            raise EngineRefusal("bad_request", "a message has no role of system, user or assistant.")
        if not isinstance(message.get("content"), str):
            raise EngineRefusal("bad_request", "a message's content is not a string.")
    return messages


def read_sampling(ask: Ask, *, vocabulary: int) -> Sampling:
    """How a request wants its tokens chosen; max_tokens 0 when it does not say. Raises EngineRefusal."""
    temperature, top_p = ask.number("temperature", 1.0), ask.number("top_p", 1.0)
    if not (0.0 <= temperature <= 2.0 and 0.0 < top_p <= 1.0):
        raise EngineRefusal("bad_request", "temperature must lie in 0 to 2 and top_p above 0, up to 1.")
    frequency, presence = ask.number("frequency_penalty", 0.0), ask.number("presence_penalty", 0.0)
    if not (abs(frequency) <= 2.0 and abs(presence) <= 2.0):
        raise EngineRefusal("bad_request", "a penalty must lie in -2 to 2.")
    sampling = Sampling(
        ask.integer("max_tokens", 0),
        temperature,
        top_p,
        tuple(text for text in ask.texts("stop") if text),
        None if ask.body.get("seed") is None else ask.integer("seed", 0),
        frequency,
        presence,
        _biases(ask, vocabulary),
    )
    if not ask.body.get("logprobs"):
        return sampling
    return replace(sampling, logprobs=min(max(ask.integer("top_logprobs", 0), 0), MAX_TOP_LOGPROBS))


def _biases(ask: Ask, vocabulary: int) -> dict[int, float]:
    """Biases by token; raises EngineRefusal `bad_bias` for a token that the model does not have."""
    given = ask.body.get("logit_bias") or {}
    if not isinstance(given, dict) or len(given) > MAX_BIASES:
        raise EngineRefusal("bad_request", "logit_bias is not a map, or too large.")
    found = {}
    for name, bias in given.items():
        if not isinstance(name, str) or not isinstance(bias, (int, float)) or not abs(bias) <= 100:
            raise EngineRefusal("bad_request", "logit_bias is not a map from tokens to numbers.")
        if not name.isascii() or not name.isdecimal() or len(name) > 9 or int(name) >= vocabulary:
            raise EngineRefusal("bad_bias", f"logit_bias: this model has the tokens 0 to {vocabulary - 1}.")
        found[int(name)] = float(bias)
    return found
