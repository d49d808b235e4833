"""Puts records in order within bounded memory: what does not fit waits in a sealed, unnamed temporary file."""

from __future__ import annotations

import os
import struct
import tempfile
import weakref
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import accumulate, pairwise
from typing import BinaryIO, cast

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.conf import settings

PARTITIONS = 256
MEMORY_BYTES = 96 << 20
TAPE_BYTES = 4 << 20
_RECORD_OVERHEAD = 64  # what a bytes object costs beside its content


class Spool:
    """Records by partition; what does not fit in memory waits in one sealed file."""

    def __init__(self, memory_bytes: int = MEMORY_BYTES, partitions: int = PARTITIONS) -> None:
        self._memory_bytes = memory_bytes
        self._held: list[list[bytes]] = [[] for _ in range(partitions)]
        self._held_bytes = 0
        self._runs: list[list[int]] = [[] for _ in range(partitions)]
        self._sizes = [0] * partitions  # of what was spilled, in bytes
        self._file: _SealedRuns | None = None

    def add(self, partition: int, record: bytes) -> None:
        """Keep one record."""
        self._held[partition].append(record)
        self._grow(len(record) + _RECORD_OVERHEAD)

    def add_all(self, records: Iterable[bytes]) -> None:
        """Keep many records, each in the partition of its first byte (of 256)."""
        held, size = self._held, 0
        for record in records:
            held[record[0]].append(record)
            size += len(record) + _RECORD_OVERHEAD
        self._grow(size)

    def partitions(self) -> Iterator[list[bytes]]:
        """Each partition's records in the order of their coming; to be drawn once."""
        for at in range(len(self._held)):
            yield self._partition(at)

    def stream(self, at: int) -> Iterator[bytes]:
        """One partition's records in the order of their coming, however many there are."""
        for run in self._runs[at]:
            yield from self._records(run, at)
        yield from self._held[at]

    def groups(self, key_bytes: int) -> Iterator[tuple[bytes, Iterable[bytes]]]:
        """(key, the rest of its records in order) of records that begin with a key; to be drawn once.

        Records must be in the partition of their first byte. One key's records may be more than fit in memory.
        """
        for at in range(len(self._held)):
            if self._sizes[at] > self._memory_bytes // 2:
                yield from self._large_groups(at, key_bytes)
            else:
                yield from _grouped(self._partition(at), key_bytes).items()

    def _large_groups(self, at: int, key_bytes: int) -> Iterator[tuple[bytes, Iterable[bytes]]]:
        """One pass for the keys of most records, each streamed, and one for all the others."""
        sizes: dict[bytes, int] = {}
        for record in self.stream(at):
            key = record[:key_bytes]
            sizes[key] = sizes.get(key, 0) + len(record)
        large = {key for key, size in sizes.items() if size > self._memory_bytes // 8}
        for key in large:
            yield key, (record[key_bytes:] for record in self.stream(at) if record[:key_bytes] == key)
        others = (record for record in self.stream(at) if record[:key_bytes] not in large)
        yield from _grouped(others, key_bytes).items()

    def _partition(self, at: int) -> list[bytes]:
        records = list(self.stream(at))
        self._held[at] = []
        return records

    def _grow(self, size: int) -> None:
        self._held_bytes += size
        if self._held_bytes <= self._memory_bytes:
            return
        if self._file is None:
            self._file = _SealedRuns()
        for at, records in enumerate(self._held):
            if records:
                head = struct.pack(f">{len(records) + 1}I", len(records), *map(len, records))
                data = head + b"".join(records)
                self._sizes[at] += len(data)
                self._runs[at].append(self._file.append(data, at))
                self._held[at] = []
        self._held_bytes = 0

    def _records(self, run: int, partition: int) -> list[bytes]:
        data = cast(_SealedRuns, self._file).read(run, partition)
        (count,) = struct.unpack_from(">I", data)
        sizes = struct.unpack_from(f">{count}I", data, 4)
        return [data[start:stop] for start, stop in pairwise(accumulate(sizes, initial=4 + 4 * count))]


def _grouped(records: Iterable[bytes], key_bytes: int) -> dict[bytes, list[bytes]]:
    groups: dict[bytes, list[bytes]] = defaultdict(list)
    for record in records:
        groups[record[:key_bytes]].append(record[key_bytes:])
    return groups


class Tape:
    """Pairs of bytes of fixed sizes, such as handles and wrapped keys, in the order of their coming."""

    def __init__(self) -> None:
        self._sizes = (0, 0)
        self._held = bytearray()
        self._runs: list[int] = []
        self._file: _SealedRuns | None = None
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, pair: tuple[bytes, bytes]) -> None:
        """Keep one pair. Raises ValueError when its sizes are not those of the first."""
        sizes = (len(pair[0]), len(pair[1]))
        if sizes != self._sizes:
            if self._count:
                raise ValueError("All pairs of a tape have the same sizes.")
            self._sizes = sizes
        self._held += pair[0]
        self._held += pair[1]
        self._count += 1
        if len(self._held) >= TAPE_BYTES:
            self._file = self._file or _SealedRuns()
            self._runs.append(self._file.append(bytes(self._held), 0))
            self._held.clear()

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        first, step = self._sizes[0], sum(self._sizes)
        for run in self._runs:
            data = cast(_SealedRuns, self._file).read(run, 0)
            for at in range(0, len(data), step):
                yield data[at : at + first], data[at + first : at + step]
        held = bytes(self._held)
        for at in range(0, len(held), step or 1):
            yield held[at : at + first], held[at + first : at + step]


class _SealedRuns:
    """Pieces of data one after another in a file without a name, under a key of this object only."""

    def __init__(self) -> None:
        folder = settings.DATA_DIR / "spool"
        folder.mkdir(parents=True, exist_ok=True)
        self._file = cast(BinaryIO, tempfile.TemporaryFile(dir=folder))  # noqa: SIM115 - lives as long as this
        weakref.finalize(self, self._file.close)
        self._cipher = AESGCM(os.urandom(32))
        self._places: list[tuple[int, int]] = []
        self._end = 0

    def append(self, data: bytes, kind: int) -> int:
        """Seal one piece; returns its number, which is its nonce as well."""
        run = len(self._places)
        sealed = self._cipher.encrypt(run.to_bytes(12, "big"), data, kind.to_bytes(4, "big"))
        self._file.seek(self._end)
        self._file.write(sealed)
        self._places.append((self._end, len(sealed)))
        self._end += len(sealed)
        return run

    def read(self, run: int, kind: int) -> bytes:
        """A piece as it was; raises InvalidTag when the file was changed."""
        start, size = self._places[run]
        self._file.seek(start)
        return self._cipher.decrypt(run.to_bytes(12, "big"), self._file.read(size), kind.to_bytes(4, "big"))
