"""What the hot routes accept: each call's JSON body as a frozen request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from modeling.serving.gateway_fields import Fields, check_item, check_text, wrong

MAX_INPUTS = 2048
MAX_CELLS = 1000
MAX_FILTERS = 20
MAX_FILTER_VALUES = 1000
Cells = dict[str, Any]  # of one row, by column


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
    candidates: tuple[str, ...] | None
    filter: dict[str, Any]
    exclude_filter: dict[str, Any]
    diversity: float
    k: int

    @classmethod
    def read(cls, fields: Fields) -> Recommend:
        """Check the body; raises Refusal."""
        model = fields.text("model", max_characters=200)
        fields.item("user")
        history = fields.items("history")
        similar_to = fields.item("similar_to")
        exclude = fields.items("exclude")
        raw = fields.take("candidates")
        candidates = None if raw is None else Fields({"candidates": raw}).items("candidates")
        kept, dropped = (_filter(name, fields.take(name)) for name in ("filter", "exclude_filter"))
        diversity = fields.number("diversity", low=0.0, high=1.0)
        k = fields.integer("k", low=1, high=1000)
        fields.finish()
        return cls(model, history, similar_to, exclude, candidates, kept, dropped, diversity or 0.0, k or 10)

    def wish(self) -> dict[str, Any]:
        """The engine's fields; what was not asked for is left out."""
        more = {
            "similar_to": self.similar_to,
            "candidates": self.candidates,
            "filter": self.filter or None,
            "exclude_filter": self.exclude_filter or None,
            "diversity": self.diversity or None,
        }
        given = {name: value for name, value in more.items() if value is not None}
        return {"history": self.history, "exclude": self.exclude, "k": self.k, **given}


def _filter(param: str, value: Any) -> dict[str, Any]:
    """Columns of the catalogue with the values that match: a list, one value, or {"min", "max"} of a number."""
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > MAX_FILTERS:
        raise wrong(param, f"must be an object of at most {MAX_FILTERS} columns.")
    found: dict[str, Any] = {}
    for name, condition in value.items():
        check_text(param, name, max_characters=256)
        at = f"{param}.{name}" if name.isidentifier() and len(name) <= 64 else param
        found[name] = _range(at, condition) if isinstance(condition, dict) else _values(at, condition)
    return found


def _range(param: str, condition: dict[str, Any]) -> dict[str, float]:
    fields = Fields(condition, prefix=f"{param}.")
    ends = {name: fields.number(name, low=-1e300, high=1e300) for name in ("min", "max")}
    fields.finish()
    return {name: end for name, end in ends.items() if end is not None}


def _values(param: str, condition: Any) -> list[str]:
    values = condition if isinstance(condition, list) else [condition]
    if not 0 < len(values) <= MAX_FILTER_VALUES:
        raise wrong(param, f"must be 1 to {MAX_FILTER_VALUES:,} values.")
    return [_value(f"{param}[{at}]", one) for at, one in enumerate(values)]


def _value(param: str, value: Any) -> str:
    if isinstance(value, float) and value == value and abs(value) < 1e300:
        return repr(value)
    return check_item(param, value).strip()


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
