"""Puts records in order within bounded memory: what does not fit waits in sealed, unnamed temporary files."""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Iterator
from typing import BinaryIO, cast

from django.conf import settings

from saas.lib.sealed import Context, SealReader, SealWriter

PARTITIONS = 32
MEMORY_BYTES = 96 << 20
_RECORD_OVERHEAD = 64  # what a bytes object costs beside its content
_LENGTH = struct.Struct(">I")


class Spool:
    """Records by partition. The files are sealed under keys of this process only, and have no name on disk."""

    def __init__(self, memory_bytes: int = MEMORY_BYTES, partitions: int = PARTITIONS) -> None:
        self._memory_bytes = memory_bytes
        self._held: list[list[bytes]] = [[] for _ in range(partitions)]
        self._held_bytes = 0
        self._parts: list[_Part | None] = [None] * partitions

    def add(self, partition: int, record: bytes) -> None:
        """Keep one record."""
        self._held[partition].append(record)
        self._held_bytes += len(record) + _RECORD_OVERHEAD
        if self._held_bytes > self._memory_bytes:
            self._spill()

    def partitions(self) -> Iterator[list[bytes]]:
        """Each partition's records in the order of their coming; to be drawn once."""
        for at, held in enumerate(self._held):
            part = self._parts[at]
            earlier = part.records() if part is not None else []
            self._held[at], self._parts[at] = [], None
            yield earlier + held if earlier else held

    def _spill(self) -> None:
        for at, records in enumerate(self._held):
            if records:
                part = self._parts[at]
                if part is None:
                    part = self._parts[at] = _Part(at)
                part.extend(records)
                self._held[at] = []
        self._held_bytes = 0


class _Part:
    def __init__(self, number: int) -> None:
        folder = settings.DATA_DIR / "spool"
        folder.mkdir(parents=True, exist_ok=True)
        self._file = cast(BinaryIO, tempfile.TemporaryFile(dir=folder))  # noqa: SIM115 - lives as long as the part
        self._key = os.urandom(32)
        self._context = Context(tenant="spool", object=str(number), version=1)
        self._writer = SealWriter(self._file, key=self._key, context=self._context)

    def extend(self, records: list[bytes]) -> None:
        for record in records:
            self._writer.write(_LENGTH.pack(len(record)) + record)

    def records(self) -> list[bytes]:
        """Everything written, in order; the file is gone afterwards."""
        self._writer.close()
        found: list[bytes] = []
        with SealReader(self._file, key=self._key, context=self._context) as reader:
            data = reader.readall()
        at = 0
        while at < len(data):
            (size,) = _LENGTH.unpack_from(data, at)
            at += _LENGTH.size
            found.append(data[at : at + size])
            at += size
        return found
