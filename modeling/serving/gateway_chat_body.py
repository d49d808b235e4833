"""What /v1/chat/completions accepts: OpenAI's parameters, read strictly."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from modeling.serving.gateway_fields import Fields, check_text, wrong
from modeling.serving.schema_limits import objection

MAX_MESSAGES = 500
MAX_STOPS = 4
MAX_BIASES = 300
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


@dataclass(frozen=True, slots=True)
class Chat:
    """POST /v1/chat/completions. `top_logprobs` is None unless logprobs are asked for."""

    model: str
    messages: tuple[dict[str, str], ...]
    stream: bool
    include_usage: bool
    max_tokens: int
    temperature: float
    top_p: float
    stop: tuple[str, ...]
    seed: int | None
    frequency_penalty: float
    presence_penalty: float
    logit_bias: dict[str, float]
    top_logprobs: int | None
    response_format: dict[str, Any] | None

    @classmethod
    def read(cls, fields: Fields) -> Chat:
        """Check the body; raises Refusal."""
        model = fields.text("model", max_characters=200)
        messages = _messages(fields.take("messages"))
        stream = fields.flag("stream")
        include_usage = _include_usage(fields.take("stream_options"), stream=stream)
        newer = fields.integer("max_completion_tokens", low=1, high=1_000_000)
        older = fields.integer("max_tokens", low=1, high=1_000_000)
        temperature = fields.number("temperature", low=0.0, high=2.0)
        top_p = fields.number("top_p", low=0.0, high=1.0)
        found = cls(
            model,
            messages,
            stream,
            include_usage,
            newer or older or 0,
            1.0 if temperature is None else temperature,
            1.0 if top_p is None else max(top_p, 1e-6),
            _stop(fields.take("stop")),
            fields.integer("seed", low=-(2**63), high=2**63 - 1),
            fields.number("frequency_penalty", low=-2.0, high=2.0) or 0.0,
            fields.number("presence_penalty", low=-2.0, high=2.0) or 0.0,
            _logit_bias(fields.take("logit_bias")),
            _top_logprobs(fields),
            _response_format(fields.take("response_format")),
        )
        _refuse_unsupported(fields)
        return found

    def wishes(self) -> dict[str, Any]:
        """All but model and stream, as the engine takes it: OpenAI's own names and shapes."""
        given = {
            "messages": self.messages,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "stop": self.stop,
            "seed": self.seed,
            "frequency_penalty": self.frequency_penalty,
            "presence_penalty": self.presence_penalty,
        }
        if self.logit_bias:
            given["logit_bias"] = self.logit_bias
        if self.top_logprobs is not None:
            given |= {"logprobs": True, "top_logprobs": self.top_logprobs}
        if self.response_format is not None:
            given["response_format"] = self.response_format
        return given


def _refuse_unsupported(fields: Fields) -> None:
    fields.fixed("n", 1)
    fields.fixed("tools", [])
    fields.fixed("tool_choice", "none", "auto")
    fields.fixed("parallel_tool_calls", True, False)
    fields.fixed("modalities", ["text"])
    for accepted in ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"):
        fields.take(accepted)
    fields.finish()


def _messages(value: Any) -> tuple[dict[str, str], ...]:
    if value is None:
        raise wrong("messages", "is required.", code="missing_required_parameter")
    if not isinstance(value, list) or not 0 < len(value) <= MAX_MESSAGES:
        raise wrong("messages", f"must be a list of 1 to {MAX_MESSAGES} messages.")
    return tuple(_message(f"messages[{index}]", item) for index, item in enumerate(value))


def _message(param: str, value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise wrong(param, "must be an object with role and content.")
    fields = Fields(value, prefix=f"{param}.")
    role = fields.take("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise wrong(f"{param}.role", f"must be one of: {', '.join(_ROLES)}.")
    content = fields.take("content")
    for accepted in ("name", "refusal", "annotations"):
        fields.take(accepted)
    fields.fixed("audio")
    fields.fixed("tool_calls", [])
    fields.fixed("function_call")
    fields.finish()
    return {"role": _ROLES[role], "content": _content(f"{param}.content", content)}


def _content(param: str, value: Any) -> str:
    """A string, or a list of text parts put together."""
    if not isinstance(value, list):
        return check_text(param, value, blank=True)
    texts = []
    for index, part in enumerate(value):
        if not isinstance(part, dict) or part.get("type") != "text" or set(part) != {"type", "text"}:
            raise wrong(f"{param}[{index}]", "must be a text part; this model reads text only.")
        texts.append(check_text(f"{param}[{index}].text", part["text"], blank=True))
    return check_text(param, "".join(texts), blank=True)


def _include_usage(value: Any, *, stream: bool) -> bool:
    if value is None:
        return False
    if not stream:
        raise wrong("stream_options", "is only allowed when stream is true.")
    if not isinstance(value, dict):
        raise wrong("stream_options", "must be an object.")
    fields = Fields(value, prefix="stream_options.")
    wanted = fields.flag("include_usage")
    fields.flag("include_obfuscation")
    fields.finish()
    return wanted


def _stop(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or len(texts) > MAX_STOPS:
        raise wrong("stop", f"must be a string or a list of at most {MAX_STOPS} strings.")
    for text in texts:
        if not isinstance(text, str) or not 0 < len(text) <= 256:
            raise wrong("stop", "each stop text must have 1 to 256 characters.")
        check_text("stop", text, blank=True)
    return tuple(texts)


def _top_logprobs(fields: Fields) -> int | None:
    wanted = fields.flag("logprobs")
    count = fields.integer("top_logprobs", low=0, high=20)
    if count and not wanted:
        raise wrong("top_logprobs", "is only allowed when logprobs is true.")
    return (count or 0) if wanted else None


def _logit_bias(value: Any) -> dict[str, float]:
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > MAX_BIASES:
        raise wrong("logit_bias", f"must be an object with at most {MAX_BIASES} tokens.")
    for token, bias in value.items():
        if not (token.isascii() and token.isdecimal() and len(token) <= 9):
            raise wrong("logit_bias", "each name must be a token's number.")
        if isinstance(bias, bool) or not isinstance(bias, (int, float)) or not -100 <= bias <= 100:
            raise wrong("logit_bias", "each bias must be a number from -100 to 100.")
    return value


def _response_format(value: Any) -> dict[str, Any] | None:
    """None for plain text, else {"type": "json_object"} or {"type": "json_schema", "json_schema": {…}}."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise wrong("response_format", "must be an object with a type.")
    fields = Fields(value, prefix="response_format.")
    kind = fields.choice("type", ("text", "json_object", "json_schema"))
    named = fields.take("json_schema")
    fields.finish()
    if kind != "json_schema":
        if named is not None:
            raise wrong("response_format", "has a json_schema, but its type is another.")
        return None if kind == "text" else {"type": kind}
    if not isinstance(named, dict):
        raise wrong("response_format", "needs json_schema, an object with name and schema.")
    return {"type": kind, "json_schema": _json_schema(named)}


def _json_schema(named: dict[str, Any]) -> dict[str, Any]:
    fields = Fields(named, prefix="response_format.json_schema.")
    name = fields.text("name", max_characters=64)
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise wrong("response_format.json_schema.name", "must be letters, digits, _ and - only.")
    schema = fields.take("schema")
    strict = fields.flag("strict")
    fields.take("description")
    fields.finish()
    if schema is None:
        schema = {"type": "object"}
    if (sentence := objection(schema)) is not None:
        raise wrong("response_format", sentence)
    return {"name": name, "schema": schema, "strict": strict}
