"""Handles of rows that are one person each, in file order, within bounded memory however many rows there are."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from modeling.grouping import PARTITIONS, Spool
from modeling.units import HANDLE_BYTES, occurrence_handle

ROWS_REMEMBERED: Final = 400_000  # their handles take about 60 MB
_SPOOL_BYTES: Final = 24 << 20
_DIGEST_BYTES: Final = 32
_PLACE = struct.Struct(">I")
_AGAIN = struct.Struct(">II")  # which row, which occurrence
Digests = Sequence[bytes]
Rows = Sequence[bytes]


class RowHandles:
    """A row's handle comes of its content and, for equal rows, of which occurrence it is.

    The first rows are handed on as they come. What follows waits sealed on disk until all is read: only then can equal
    rows be counted one part of the digests at a time.
    """

    def __init__(self, key: bytes, remembered: int = ROWS_REMEMBERED) -> None:
        self._key = key
        self._remembered = remembered
        self._seen: dict[bytes, int] = {}

    def pairs(self, batches: Iterable[tuple[Digests, Rows]]) -> Iterator[tuple[bytes, bytes]]:
        """(handle, row) for batches of digests (32 bytes each) and their rows."""
        batches, seen, count = iter(batches), self._seen, 0
        for digests, rows in batches:
            for digest, row in zip(digests, rows, strict=True):
                start = digest[:HANDLE_BYTES]
                occurrence = seen.get(start, 0)
                seen[start] = occurrence + 1
                yield occurrence_handle(self._key, digest, occurrence), row
            count += len(digests)
            if count >= self._remembered:
                break
        yield from self._later(batches)

    def _later(self, batches: Iterator[tuple[Digests, Rows]]) -> Iterator[tuple[bytes, bytes]]:
        waiting, by_digest = Spool(_SPOOL_BYTES, partitions=1), Spool(_SPOOL_BYTES)
        count = 0
        for digests, rows in batches:
            for digest, row in zip(digests, rows, strict=True):
                waiting.add(0, digest + row)
            places = enumerate(digests, count)
            by_digest.add_all(digest[:HANDLE_BYTES] + _PLACE.pack(place) for place, digest in places)
            count += len(digests)
        again = iter(self._repeated(by_digest, count).partitions())
        part, occurrences = -1, dict[int, int]()
        for place, record in enumerate(waiting.stream(0)):
            while part < place * PARTITIONS // count:
                part, occurrences = part + 1, dict(map(_AGAIN.unpack, next(again)))
            digest = record[:_DIGEST_BYTES]
            yield occurrence_handle(self._key, digest, occurrences.get(place, 0)), record[_DIGEST_BYTES:]

    def _repeated(self, by_digest: Spool, count: int) -> Spool:
        """Rows that are not the first of their kind, by place."""
        again = Spool(_SPOOL_BYTES)
        for part in range(PARTITIONS):
            seen: dict[bytes, int] = {}
            for record in by_digest.stream(part):
                start = record[:HANDLE_BYTES]
                occurrence = seen.get(start) or self._seen.get(start, 0)
                seen[start] = occurrence + 1
                if occurrence:
                    (place,) = _PLACE.unpack(record[HANDLE_BYTES:])
                    again.add(place * PARTITIONS // count, _AGAIN.pack(place, occurrence))
        return again
