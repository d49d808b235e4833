"""What rows say, whatever their order: a keyed hash of a set of rows, and which of two sets' rows belong together."""

from __future__ import annotations

import hmac
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgpack

DIGEST_BYTES: Final = 16
_SUM: Final = (1 << 512) - 1


class RowsHash:
    """The keyed hash of a multiset of rows: the same for the same rows in any order, cut and order of columns.

    It commits to how often each row is there, a row being its values by column name, exactly as they were read. The
    sum of the rows' HMAC-SHA-512 modulo 2^512 (a keyed multiset hash) and their number are hashed once more under the
    key, so that nobody without the key learns anything or can look for a collision.
    """

    def __init__(self, key: bytes, columns: Sequence[str]) -> None:
        self._key = key
        self._order = sorted(range(len(columns)), key=lambda at: columns[at])
        self._names = msgpack.packb(sorted(columns))
        self._sum = 0
        self._count = 0

    def digest(self, values: Sequence[Any]) -> bytes:
        """One row's keyed digest (64 bytes); it is not counted in."""
        said = msgpack.packb([values[at] for at in self._order], use_bin_type=True)
        return hmac.digest(self._key, b"row|" + said, "sha512")

    def add(self, values: Sequence[Any]) -> bytes:
        """Count a row in; the first 16 bytes of its digest."""
        digest = self.digest(values)
        self._sum = (self._sum + int.from_bytes(digest, "big")) & _SUM
        self._count += 1
        return digest[:DIGEST_BYTES]

    def hexdigest(self) -> str:
        """64 hexadecimal characters."""
        said = self._count.to_bytes(8, "big") + self._sum.to_bytes(64, "big") + self._names
        return hmac.digest(self._key, b"rows|" + said, "sha256").hex()


@dataclass
class Pairing:
    """Places in two lists of rows: the same, changed (paired in order), only in the old, only in the new."""

    same: list[tuple[int, int]] = field(default_factory=list)
    changed: list[tuple[int, int]] = field(default_factory=list)
    removed: list[int] = field(default_factory=list)
    added: list[int] = field(default_factory=list)

    @property
    def differs(self) -> bool:
        """Whether the two lists hold different rows."""
        return bool(self.changed or self.removed or self.added)


def pair(old: Sequence[bytes], new: Sequence[bytes]) -> Pairing:
    """Pair the digests of two lists: equal ones first, in order; what is left over is changed as far as it reaches."""
    waiting: dict[bytes, deque[int]] = defaultdict(deque)
    for at, digest in enumerate(old):
        waiting[digest].append(at)
    found = Pairing()
    extra = []
    for at, digest in enumerate(new):
        if waiting.get(digest):
            found.same.append((waiting[digest].popleft(), at))
        else:
            extra.append(at)
    left = sorted(at for places in waiting.values() for at in places)
    both = min(len(left), len(extra))
    found.changed = list(zip(left[:both], extra[:both], strict=True))
    found.removed, found.added = left[both:], extra[both:]
    return found
