"""What a JSON schema for an answer may be at most, checked by the gateway and again by the engine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

MAX_SCHEMA_BYTES = 64 * 1024
MAX_DEPTH = 32


def objection(schema: Any) -> str | None:
    """Why a schema is not taken, in a sentence; None when its size and shape are fine."""
    if not isinstance(schema, Mapping):
        return "The schema must be an object."
    if depth(schema) > MAX_DEPTH:
        return f"The schema is nested more than {MAX_DEPTH} levels deep."
    if _has_huge_number(schema):
        return "The schema has a whole number of more than 63 bits."
    if len(json.dumps(schema)) > MAX_SCHEMA_BYTES:
        return f"The schema is larger than {MAX_SCHEMA_BYTES >> 10} KiB."
    return None


def _has_huge_number(value: Any) -> bool:
    """Whether a number is in it that no frame to the engine can hold."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, int) and abs(one) >= 2**63:
            return True
        if isinstance(one, (Mapping, list)):
            left += one.values() if isinstance(one, Mapping) else one
    return False


def depth(value: Any) -> int:
    """How deeply lists and objects lie in one another; 0 for a plain value. No recursion: any input is safe."""
    deepest, level = 0, [value]
    while level := [item for item in level if isinstance(item, (Mapping, list))]:
        deepest += 1
        level = [item for part in level for item in (part.values() if isinstance(part, Mapping) else part)]
    return deepest
