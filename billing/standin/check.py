"""Checks a decoded request against the Stripe SDK's own typed parameters; knows no state."""

from __future__ import annotations

import sys
import types
import typing
from typing import Any, Literal, NotRequired, Union, get_args, get_origin

SCALARS: dict[Any, Any] = {
    str: lambda value: isinstance(value, str),
    int: lambda value: isinstance(value, str) and value.lstrip("-").isdecimal(),
    bool: lambda value: value in {"true", "false"},
    float: lambda value: isinstance(value, str) and value.replace(".", "", 1).isdecimal(),
}
LOOSE = {"UntypedStripeObject": dict, "Decimal": str, "StripeContext": str}


class BadParameter(Exception):
    """A parameter that Stripe would refuse; `param` is written as in the request."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


def decode_form(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """`a[b][0]=c` pairs as nested dicts and lists."""
    tree: dict[str, Any] = {}
    for name, value in pairs:
        *path, last = name.replace("]", "").split("[")
        node = tree
        for step in path:
            node = node.setdefault(step, {})
        node[last] = value
    return {name: _lists(value) for name, value in tree.items()}


def _lists(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    if node and all(key == "" or key.isdecimal() for key in node):
        return [_lists(node[key]) for key in sorted(node, key=lambda key: int(key or 0))]
    return {key: _lists(value) for key, value in node.items()}


def check(values: dict[str, Any], params: type, *, at: str = "") -> None:
    """Raise BadParameter unless `values` fit the TypedDict `params`: no unknown, missing or wrongly typed names."""
    hints = params.__annotations__
    required: frozenset[str] = getattr(params, "__required_keys__", frozenset())
    for name in required - values.keys():
        raise BadParameter(f"Missing required param: {_name(at, name)}.", _name(at, name))
    for name, value in values.items():
        if name not in hints:
            raise BadParameter(f"Received unknown parameter: {_name(at, name)}", _name(at, name))
        if not _fits(value, hints[name], params, _name(at, name)):
            raise BadParameter(f"Invalid value for {_name(at, name)}.", _name(at, name))


def _name(at: str, name: str) -> str:
    return f"{at}[{name}]" if at else name


def _resolve(hint: Any, owner: type) -> Any:
    if isinstance(hint, typing.ForwardRef):
        hint = hint.__forward_arg__
    if isinstance(hint, str):
        space = {**vars(typing), **vars(sys.modules[owner.__module__])}
        for name, stand in LOOSE.items():
            space.setdefault(name, stand)
        return eval(hint, {"__builtins__": {}, **_builtins()}, space)  # noqa: S307  the SDK's own annotations
    return hint


def _builtins() -> dict[str, Any]:
    return {"str": str, "int": int, "bool": bool, "float": float, "dict": dict, "list": list, "None": None}


def _fits(value: Any, hint: Any, owner: type, at: str) -> bool:
    hint = _resolve(hint, owner)
    origin, inner = get_origin(hint), get_args(hint)
    if origin is NotRequired:
        return _fits(value, inner[0], owner, at)
    if origin in {Union, types.UnionType}:
        options = [_resolve(option, owner) for option in inner]
        if any(get_origin(option) is Literal for option in options):
            options = [
                option for option in options if option is not str
            ]  # the SDK leaves its word lists open for later words; today's words are the list
        return any(_accepts(value, option, owner, at) for option in options)
    if origin is Literal:
        return value in inner
    if origin is list:
        return isinstance(value, list) and all(
            _fits(item, inner[0], owner, f"{at}[{i}]") for i, item in enumerate(value)
        )
    if origin is dict or hint is dict:
        return isinstance(value, dict)
    if hint in SCALARS:
        return bool(SCALARS[hint](value))
    if hasattr(hint, "__required_keys__"):
        if isinstance(value, dict):
            check(value, hint, at=at)
        return isinstance(value, dict)
    return hint is Any


def _accepts(value: Any, option: Any, owner: type, at: str) -> bool:
    option = _resolve(option, owner)
    if hasattr(option, "__required_keys__") and not isinstance(value, dict):
        return False
    return option is not type(None) and _fits(value, option, owner, at)
