"""What the hot routes accept: each call's JSON body as a frozen request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from modeling.serving.gateway_fields import Fields, check_text, wrong

MAX_INPUTS = 2048
MAX_CELLS = 1000
MAX_MESSAGES = 500
MAX_STOPS = 4
Cells = dict[str, Any]  # of one row, by column
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


@dataclass(frozen=True, slots=True)
class Classify:
    """POST /v1/classify."""

    model: str
    inputs: tuple[str | Cells, ...]
    top_k: int | None
    abstain_below: float | None

    @classmethod
    def read(cls, fields: Fields) -> Classify:
        """Check the body; raises Refusal."""
        model = fields.text("model", max_characters=200)
        inputs = _inputs(fields.take("inputs"))
        top_k = fields.integer("top_k", low=1, high=2048)
        abstain_below = fields.number("abstain_below", low=0.0, high=1.0)
        fields.finish()
        return cls(model, inputs, top_k, abstain_below)

    def texts(self) -> tuple[str, ...]:
        """The inputs for a model of texts; raises Refusal."""
        return tuple(_text(f"inputs[{index}]", item) for index, item in enumerate(self.inputs))

    def rows(self) -> tuple[Cells, ...]:
        """The inputs for a model on columns; raises Refusal."""
        for index, item in enumerate(self.inputs):
            if isinstance(item, str):
                raise wrong(f"inputs[{index}]", "must be an object with this model's columns.")
        return tuple(item for item in self.inputs if not isinstance(item, str))


def _inputs(value: Any) -> tuple[str | Cells, ...]:
    if value is None:
        raise wrong("inputs", "is required.", code="missing_required_parameter")
    if not isinstance(value, list) or not 0 < len(value) <= MAX_INPUTS:
        raise wrong("inputs", f"must be a list of 1 to {MAX_INPUTS} texts, or of as many objects.")
    return tuple(_input(f"inputs[{index}]", item) for index, item in enumerate(value))


def _input(param: str, value: Any) -> str | Cells:
    """A text, or an object of cells by column."""
    if not isinstance(value, dict):
        return check_text(param, value)
    if len(value) > MAX_CELLS:
        raise wrong(param, f"has more than {MAX_CELLS} columns.")
    for name, cell in value.items():
        check_text(param, name, blank=True)
        is_plain = name.isidentifier() and len(name) <= 64  # anything else is not echoed
        _check_cell(f"{param}.{name}" if is_plain else param, cell)
    return value


def _check_cell(param: str, cell: Any) -> None:
    """One value: a text, a number that is no larger than a float, true, false or null."""
    if isinstance(cell, str):
        check_text(param, cell, blank=True)
    elif isinstance(cell, list | dict):
        raise wrong(param, "must be one value, not a list or an object.")
    elif isinstance(cell, int) and abs(cell) >= 2**63:
        raise wrong(param, "has a number that is too large.")


def _text(param: str, value: str | Cells) -> str:
    """A text, or an object whose only field is the text."""
    if isinstance(value, str):
        return value
    if set(value) != {"text"}:
        raise wrong(param, 'must be a string or an object {"text": …}.')
    return check_text(f"{param}.text", value["text"])


@dataclass(frozen=True, slots=True)
class Recommend:
    """POST /v1/recommend. `user` is accepted for the caller's own records and used for nothing."""

    model: str
    history: tuple[str, ...]
    similar_to: str | None
    exclude: tuple[str, ...]
    k: int

    @classmethod
    def read(cls, fields: Fields) -> Recommend:
        """Check the body; raises Refusal."""
        model = fields.text("model", max_characters=200)
        fields.item("user")
        history = fields.items("history")
        similar_to = fields.item("similar_to")
        exclude = fields.items("exclude")
        k = fields.integer("k", low=1, high=1000)
        fields.finish()
        return cls(model, history, similar_to, exclude, k or 10)


@dataclass(frozen=True, slots=True)
class Embed:
    """POST /v1/embeddings."""

    model: str
    inputs: tuple[str, ...]
    base64: bool
    dimensions: int | None

    @classmethod
    def read(cls, fields: Fields) -> Embed:
        """Check the body; raises Refusal."""
        model = fields.text("model", max_characters=200)
        inputs = _embedding_inputs(fields.take("input"))
        encoding = fields.choice("encoding_format", ("float", "base64"))
        dimensions = fields.integer("dimensions", low=1, high=65_536)
        fields.take("user")
        fields.finish()
        return cls(model, inputs, encoding == "base64", dimensions)


def _embedding_inputs(value: Any) -> tuple[str, ...]:
    if value is None:
        raise wrong("input", "is required.", code="missing_required_parameter")
    if isinstance(value, str):
        return (check_text("input", value),)
    if not isinstance(value, list) or not 0 < len(value) <= MAX_INPUTS:
        raise wrong("input", f"must be a text or a list of 1 to {MAX_INPUTS} texts.")
    if isinstance(value[0], (int, list)):
        raise wrong("input", "token ids are not supported: send texts.")
    return tuple(check_text(f"input[{index}]", item) for index, item in enumerate(value))


@dataclass(frozen=True, slots=True)
class Chat:
    """POST /v1/chat/completions."""

    model: str
    messages: tuple[dict[str, str], ...]
    stream: bool
    include_usage: bool
    max_tokens: int
    temperature: float
    top_p: float
    stop: tuple[str, ...]
    seed: int | None

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
        stop = _stop(fields.take("stop"))
        seed = fields.integer("seed", low=-(2**63), high=2**63 - 1)
        _refuse_unsupported(fields)
        return cls(
            model,
            messages,
            stream,
            include_usage,
            newer or older or 0,
            1.0 if temperature is None else temperature,
            1.0 if top_p is None else max(top_p, 1e-6),
            stop,
            seed,
        )


def _refuse_unsupported(fields: Fields) -> None:
    fields.fixed("n", 1)
    fields.fixed("frequency_penalty", 0)
    fields.fixed("presence_penalty", 0)
    fields.fixed("logit_bias", {})
    fields.fixed("logprobs", False)
    fields.fixed("top_logprobs", 0)
    fields.fixed("response_format", {"type": "text"})
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
