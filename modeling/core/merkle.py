"""Merkle trees over salted leaves, one per privacy unit: a root to sign, and proofs that one unit is under it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

SCHEME = "sha256-merkle-rfc6962, leaf 00|salt|rows, node 01|left|right, rows 02|sorted 03-digests"
_LEAF, _NODE, _ROWS, _ROW = b"\x00", b"\x01", b"\x02", b"\x03"


def rows_digest(rows: Iterable[bytes]) -> bytes:
    """Digest of one unit's rows, whatever their order."""
    digests = sorted(hashlib.sha256(_ROW + row).digest() for row in rows)
    return hashlib.sha256(_ROWS + b"".join(digests)).digest()


def leaf(salt: bytes, digest: bytes) -> bytes:
    """A unit's leaf. Without the salt (32 secret bytes) a guess at low-entropy rows cannot be tried."""
    if len(salt) != 32 or len(digest) != 32:
        raise ValueError("salt and digest have 32 bytes each")
    return hashlib.sha256(_LEAF + salt + digest).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """The tree's head (RFC 6962, 2.1): a lone last node moves up unchanged; no leaves give SHA-256 of nothing."""
    level = list(leaves)
    if not level:
        return hashlib.sha256(b"").digest()
    while len(level) > 1:
        level = _above(level)
    return level[0]


def path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The siblings from leaf `index` up to the root; raises IndexError."""
    if not 0 <= index < len(leaves):
        raise IndexError(index)
    level, found = list(leaves), []
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            found.append(level[sibling])
        level, index = _above(level), index // 2
    return found


def root_from(start: bytes, *, index: int, size: int, siblings: Sequence[bytes]) -> bytes:
    """The root that a proof leads to; raises ValueError when the proof does not fit a tree of `size` leaves."""
    if not 0 <= index < size:
        raise ValueError("the leaf lies outside the tree")
    node, rest = start, list(siblings)
    while size > 1:
        if index ^ 1 < size:
            if not rest:
                raise ValueError("the proof is too short")
            sibling = rest.pop(0)
            node = _join(sibling, node) if index % 2 else _join(node, sibling)
        index, size = index // 2, (size + 1) // 2
    if rest:
        raise ValueError("the proof is too long")
    return node


def _above(level: Sequence[bytes]) -> list[bytes]:
    pairs = [_join(level[at], level[at + 1]) for at in range(0, len(level) - 1, 2)]
    return [*pairs, level[-1]] if len(level) % 2 else pairs


def _join(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(_NODE + left + right).digest()
