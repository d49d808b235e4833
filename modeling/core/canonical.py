"""One way to write JSON as bytes, so that the same content always has the same digest; strict when it reads."""

from __future__ import annotations

import hashlib
import json
from decimal import Decimal
from typing import Any


def exact(value: Any) -> Any:
    """The value with every float as hexadecimal text: no rounding by whoever writes or reads it."""
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, dict):
        return {str(key): exact(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [exact(inner) for inner in value]
    return value


def plain(value: Any) -> Any:
    """The value with every number as exact decimal text: a database may hand 1e22 or 5.0 back as a whole number."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{Decimal(repr(value)).normalize() + 0:f}"
    return value


def encode(value: Any) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces; raises ValueError for NaN and infinities."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "surrogatepass")


def digest(value: Any) -> str:
    """SHA-256 over a JSON value, as hex; numbers count by their value, not by how they are written."""
    return hashlib.sha256(encode(plain(value))).hexdigest()


def decode(data: bytes | str) -> Any:
    """JSON to a value; raises ValueError for repeated keys, NaN and infinities."""
    return json.loads(data, object_pairs_hook=_once, parse_constant=_refuse)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is repeated")
    return found


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
