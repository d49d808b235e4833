"""Whose record a row is: keyed handles of people, the held-out split, and marks that show overlapping files."""

from __future__ import annotations

import hmac
import json
import sys
import unicodedata
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

import numpy as np

from tenants import vault
from tenants.models import Tenant

HANDLE_BYTES: Final = 16
HELD_OUT_SHARE: Final = 0.2
MARKS_KEPT: Final = 16_384
SHARED_MARKS: Final = 3  # fewer equal rows may be chance: "yes" written by two people
NOBODY: Final = b"\0" * HANDLE_BYTES  # the one handle of a catalogue: its rows are things, not people
_NAMES_KEPT: Final = 300_000
_NAME_CHARACTERS: Final = 100
_BLANKS: Final = "\t\v\f\x1c\x1d\x1e\x1f\x85\u1680\u2028\u2029"  # besides those that NFKC makes plain
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


def occurrence_handle(key: bytes, digest: bytes, occurrence: int) -> bytes:
    """The handle of a row that is one person: of its content and, among equal rows, which occurrence it is."""
    if occurrence == 0:
        return digest[:HANDLE_BYTES]
    return hmac.digest(key, digest + occurrence.to_bytes(8, "big"), "sha256")[:HANDLE_BYTES]


class _Keyed:
    """HMAC-SHA-256 of many short messages with one prefix: the key is hashed once."""

    def __init__(self, key: bytes, prefix: bytes) -> None:
        padded = key.ljust(sha256().block_size, b"\0")
        self._inner = sha256(bytes(byte ^ 0x36 for byte in padded) + prefix)
        self._outer = sha256(bytes(byte ^ 0x5C for byte in padded))

    def digests(self, messages: Iterable[bytes]) -> list[bytes]:
        """Each message's digest."""
        inner, outer, digests = self._inner.copy, self._outer.copy, []
        for message in messages:
            within, around = inner(), outer()
            within.update(message)
            around.update(within.digest())
            digests.append(around.digest())
        return digests


class PersonHandles:
    """`person_handle` for many names, those met lately remembered."""

    def __init__(self, key: bytes) -> None:
        self._keyed = _Keyed(key, b"unit|")
        self._known: dict[str, bytes] = {}

    def of(self, names: Sequence[Any]) -> list[bytes]:
        """The handles of the people named, in their order."""
        known = self._known
        texts = [name if isinstance(name, str) else canonical(name) for name in names]
        fresh = list({name for name in texts if name not in known})
        made = self._keyed.digests(canonical(name).encode() for name in fresh)
        known.update(zip(fresh, (digest[:HANDLE_BYTES] for digest in made), strict=True))
        handles = [known[name] for name in texts]
        if len(known) > _NAMES_KEPT or any(len(name) > _NAME_CHARACTERS for name in fresh):
            known.clear()
        return handles


class RowDigests:
    """The digests of `row_digest` for many rows: cells of a block are made canonical all at once where they can be."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._keyed = _Keyed(key, b"row|")

    def of_rows(self, rows: Iterable[Sequence[Any]]) -> list[bytes]:
        """Of rows by their values."""
        return [row_digest(self._key, values) for values in rows]

    def of_block(
        self, lines: Sequence[str], delimiter: str, quoted: Mapping[int, Sequence[str]]
    ) -> list[bytes]:
        """Of rows that are lines of text, but for the quoted ones, whose cells are given by their index."""
        return self._keyed.digests(self._messages(lines, delimiter, quoted))

    def _messages(
        self, lines: Sequence[str], mark: str, quoted: Mapping[int, Sequence[str]]
    ) -> Iterator[bytes]:
        plain = [line for at, line in enumerate(lines) if at not in quoted] if quoted else lines
        folded = iter(_folded(plain, mark))
        with_quotes = iter(
            _folded(["\0".join(quoted[at]) for at in sorted(quoted)], "\0")
        )  # no cell holds a NUL
        for at in range(len(lines)):
            words = next(with_quotes if at in quoted else folded)
            words.sort()  # as bytes in the order of their characters
            yield b"\x1f".join(words)


def _folded(lines: Sequence[str], mark: str) -> Iterator[list[bytes]]:
    """The canonical cells of lines without quotes. Few texts change their shape when they are folded as a whole."""
    text = "\n".join(lines)
    folded = text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
    same = folded.count(mark) == text.count(mark) and folded.count("\n") == text.count("\n")
    if not same:
        return ([canonical(cell).encode() for cell in line.split(mark)] for line in lines)
    split, data = mark.encode(), folded.encode()
    odd = _odd_lines(folded, data, mark)
    if not odd:
        return (line.split(split) for line in data.split(b"\n"))
    return (
        [" ".join(cell.split()).encode() for cell in line.decode().split(mark)]
        if at in odd
        else line.split(split)
        for at, line in enumerate(data.split(b"\n"))
    )


def _odd_lines(text: str, data: bytes, delimiter: str) -> set[int]:
    """Which lines, given as text and in UTF-8, may have cells with blanks that `canonical` takes out."""
    blanks = _BLANKS.replace(delimiter, "")
    odd = set[int]()
    if any(blank in text for blank in blanks):
        odd.update(at for at, line in enumerate(text.split("\n")) if any(blank in line for blank in blanks))
    signs = np.frombuffer(b"\n" + data + b"\n", np.uint8)
    is_space, is_end = signs == ord(" "), signs == ord("\n")
    is_edge = is_space | is_end | (signs == ord(delimiter))
    places = 1 + np.flatnonzero(is_space[1:-1] & (is_edge[:-2] | is_edge[2:]))
    if len(places):
        odd.update((np.searchsorted(np.flatnonzero(is_end), places) - 1).tolist())
    return odd


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

    def add_all(self, digests: Iterable[bytes]) -> None:
        """Count many rows in."""
        below = self._below.to_bytes(9, "big")[1:] if self._below < 1 << 64 else b"\xff" * 9
        for digest in digests:
            if digest[-8:] < below:
                self.add(digest)

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
