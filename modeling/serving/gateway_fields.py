"""Strict JSON objects: values taken one by one, every refusal with the parameter it is about, nothing echoed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from saas.lib.errors import Refusal

MAX_TEXT_CHARACTERS = 100_000
MAX_ITEMS = 10_000


def parse(raw: bytes) -> Fields:
    """A JSON object from a request's body; raises Refusal without echoing any of it."""
    try:
        value = _DECODER.decode(raw.decode())
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise Refusal("The body is not valid JSON in UTF-8.", code="invalid_json") from error
    if not isinstance(value, dict):
        raise Refusal("The body must be a JSON object.", code="invalid_json")
    return Fields(value)


def _no_constant(name: str) -> float:
    raise ValueError("not a JSON number")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _finite(written: str) -> float:
    """A number with a point or an exponent; 1e999 is no number, nor could any answer or log say it again."""
    value = float(written)
    if value in (_INFINITY, -_INFINITY):
        raise ValueError("larger than any number")
    return value


_INFINITY = float("inf")
_DECODER = json.JSONDecoder(
    parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_no_duplicates
)


def wrong(param: str, sentence: str, *, code: str = "invalid_value") -> Refusal:
    """A 400 about one parameter."""
    return Refusal(f"{param}: {sentence}", code=code, param=param)


class Fields:
    """A JSON object whose values are taken one by one; `finish` refuses what nobody took."""

    def __init__(self, values: Mapping[str, Any], *, prefix: str = "") -> None:
        self._values = dict(values)
        self._prefix = prefix

    def name(self, field: str) -> str:
        """The full parameter name, such as messages[0].role."""
        return f"{self._prefix}{field}"

    def canonical(self) -> bytes:
        """The object in one form, however it was written."""
        return json.dumps(self._values, sort_keys=True, separators=(",", ":")).encode()

    def has(self, field: str) -> bool:
        """Whether the value is there and neither null, false nor empty; it stays."""
        return bool(self._values.get(field))

    def take(self, field: str) -> Any:
        """The raw value, or None; null and absent are the same, as in OpenAI's API."""
        return self._values.pop(field, None)

    def text(self, field: str, *, max_characters: int = MAX_TEXT_CHARACTERS) -> str:
        """A non-blank string."""
        value = self.take(field)
        if value is None:
            raise wrong(self.name(field), "is required.", code="missing_required_parameter")
        return check_text(self.name(field), value, max_characters=max_characters)

    def optional_text(self, field: str, *, max_characters: int = 256) -> str | None:
        """A non-blank string or None."""
        value = self.take(field)
        return None if value is None else check_text(self.name(field), value, max_characters=max_characters)

    def integer(self, field: str, *, low: int, high: int) -> int | None:
        """A whole number in low..high, or None."""
        value = self.take(field)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise wrong(self.name(field), f"must be a whole number from {low} to {high}.")
        return value

    def number(self, field: str, *, low: float, high: float) -> float | None:
        """A number in low..high, or None."""
        value = self.take(field)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
            raise wrong(self.name(field), "must be a number.")
        if not low <= value <= high:
            raise wrong(self.name(field), f"must be from {low:g} to {high:g}.")
        return float(value)

    def flag(self, field: str) -> bool:
        """true or false, false when absent."""
        value = self.take(field)
        if value is not None and not isinstance(value, bool):
            raise wrong(self.name(field), "must be true or false.")
        return bool(value)

    def choice(self, field: str, options: tuple[str, ...]) -> str:
        """One of `options`, the first when absent."""
        value = self.take(field)
        if value is None:
            return options[0]
        if not isinstance(value, str) or value not in options:
            raise wrong(self.name(field), f"must be one of: {', '.join(options)}.")
        return value

    def items(self, field: str, *, most: int = MAX_ITEMS) -> tuple[str, ...]:
        """A list of item ids: strings or whole numbers, () when absent."""
        value = self.take(field)
        if value is None:
            return ()
        if not isinstance(value, list) or len(value) > most:
            raise wrong(self.name(field), f"must be a list of at most {most} item ids.")
        return tuple(check_item(f"{self.name(field)}[{index}]", item) for index, item in enumerate(value))

    def item(self, field: str) -> str | None:
        """One item id or None."""
        value = self.take(field)
        return None if value is None else check_item(self.name(field), value)

    def fixed(self, field: str, *allowed: Any) -> None:
        """A parameter of OpenAI's that may only have the value it has when absent."""
        value = self.take(field)
        if value is not None and value not in allowed:
            raise wrong(self.name(field), "is not supported by this model.", code="unsupported_parameter")

    def finish(self) -> None:
        """Refuse parameters that this call does not have."""
        for field in self._values:
            known = field[:64] if field.isidentifier() else None
            raise Refusal(
                "The body has a parameter that this call does not know: take it out. See /v1/openapi.json.",
                code="unknown_parameter",
                param=known,
            )


def check_text(
    param: str, value: Any, *, max_characters: int = MAX_TEXT_CHARACTERS, blank: bool = False
) -> str:
    """A string that is valid Unicode, without NUL, not blank unless allowed, and not too long."""
    if not isinstance(value, str):
        raise wrong(param, "must be a string.")
    if len(value) > max_characters:
        raise wrong(param, f"has more than {max_characters:,} characters.", code="string_above_max_length")
    if not blank and not value.strip():
        raise wrong(param, "must not be blank.")
    if "\0" in value:
        raise wrong(param, "must not contain NUL characters.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise wrong(param, "contains half of a surrogate pair.") from error
    return value


def check_item(param: str, value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
        return str(value)
    return check_text(param, value, max_characters=512)
