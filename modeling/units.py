"""Whose record a row is: keyed handles of people, the held-out split, and marks that show overlapping files."""

from __future__ import annotations

import hmac
import json
import sys
import unicodedata
from array import array
from collections.abc import Sequence
from typing import Any, Final

from tenants import vault
from tenants.models import Tenant

HANDLE_BYTES: Final = 16
HELD_OUT_SHARE: Final = 0.2
MARKS_KEPT: Final = 16_384
SHARED_MARKS: Final = 3  # fewer equal rows may be chance: "yes" written by two people
NOBODY: Final = b"\0" * HANDLE_BYTES  # the one handle of a catalogue: its rows are things, not people
_HELD_OUT_BELOW: Final = int(HELD_OUT_SHARE * (1 << 64))


def handle_key(tenant: Tenant) -> bytes:
    """The tenant's key for unit handles: the same person has the same handle in all of the tenant's datasets."""
    return vault.derive(tenant, "unit-handle")


def held_out_key(tenant: Tenant) -> bytes:
    """The tenant's key of the split. One for all datasets: joining lineages never moves a person across it."""
    return vault.derive(tenant, "held-out")


def is_held_out(key: bytes, handle: bytes) -> bool:
    """Whether a unit is among the held-out fifth; `key` is `held_out_key(tenant)`."""
    drawn = hmac.digest(key, b"held-out|" + handle, "sha256")[:8]
    return int.from_bytes(drawn, "big") < _HELD_OUT_BELOW


def canonical(value: Any) -> str:
    """A value without the accidents of writing: compatibility forms, case, surrounding and repeated blanks."""
    if not isinstance(value, str):
        value = "" if value is None else json.dumps(value, ensure_ascii=False, sort_keys=True)
    if not value.isascii():
        value = unicodedata.normalize("NFKC", value).casefold()
        return " ".join(value.split())
    return " ".join(value.lower().split())


def person_handle(key: bytes, value: Any) -> bytes:
    """The handle of the person a unit column names; rows without a name share one handle, the safe side."""
    return hmac.digest(key, b"unit|" + canonical(value).encode(), "sha256")[:HANDLE_BYTES]


def row_digest(key: bytes, values: Sequence[Any]) -> bytes:
    """A row's keyed digest, free of its line number and of the order of its columns."""
    cells = sorted(canonical(value) for value in values)
    return hmac.digest(key, b"row|" + "\x1f".join(cells).encode(), "sha256")


class RowHandles:
    """Handles of rows that are one person each: the row's content and, for equal rows, which occurrence it is."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._seen: dict[bytes, int] = {}

    def of(self, digest: bytes) -> bytes:
        """The handle of the next row with this digest."""
        handle = digest[:HANDLE_BYTES]
        occurrence = self._seen.get(handle, 0)
        self._seen[handle] = occurrence + 1
        if occurrence == 0:
            return handle
        return hmac.digest(self._key, digest + occurrence.to_bytes(8, "big"), "sha256")[:HANDLE_BYTES]


class RowMarks:
    """The smallest 16,384 row digests (8 bytes of each): files that share rows share marks, however they are cut."""

    def __init__(self) -> None:
        self._held: list[int] = []
        self._below = 1 << 64

    def add(self, digest: bytes) -> None:
        """Count one row in."""
        mark = int.from_bytes(digest[-8:], "big")
        if mark < self._below:
            self._held.append(mark)
            if len(self._held) >= 4 * MARKS_KEPT:
                self._trim()

    def _trim(self) -> None:
        self._held = sorted(set(self._held))[:MARKS_KEPT]
        if len(self._held) == MARKS_KEPT:
            self._below = self._held[-1]

    def packed(self) -> bytes:
        """The marks in rising order, 8 bytes each."""
        self._trim()
        return b"".join(mark.to_bytes(8, "big") for mark in self._held)


def shares_rows(first: bytes, second: bytes) -> bool:
    """Whether two packed sets of marks have at least three marks (or all of the smaller file's) in common."""
    ours, theirs = _unpacked(first), _unpacked(second)
    if not ours or not theirs:
        return False
    smaller = min(len(ours), len(theirs))  # a file of one or two rows shares as many as it has
    return len(set(ours).intersection(theirs)) >= min(SHARED_MARKS, smaller)


def _unpacked(packed: bytes) -> array[int]:
    marks = array("Q", packed)
    if sys.byteorder == "little":
        marks.byteswap()
    return marks
