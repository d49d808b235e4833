"""Random access for the limited child: it asks for ranges of the sealed file over its pipes; the parent serves them.

A Parquet file is read from its end and column by column, so it cannot stream; nothing of it is kept in the child, and
no file is opened there.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from typing import Any, BinaryIO

from modeling.core.file_errors import FileRefused, refuse

MAGIC = b"PAR1"
RANGE_BYTES = 64 << 20
_PIECE_BYTES = 1 << 20
_TEXT_AFTER = frozenset(b"\t\r\n") | frozenset(range(32, 127))


def is_parquet(head: bytes) -> bool:
    """Whether a file begins as Parquet does: its magic, then no text (a CSV may well have a column PAR1)."""
    after = head[len(MAGIC) : 2 * len(MAGIC)]
    return head.startswith(MAGIC) and (after in (b"", MAGIC) or after[0] not in _TEXT_AFTER)


def parquet_size(source: Any) -> int | None:
    """The bytes of a Parquet file that can be sought in; None for everything else, which streams."""
    is_seekable: Callable[[], bool] = getattr(source, "seekable", lambda: False)
    if not is_seekable():
        return None
    start = source.tell()
    head = source.read(2 * len(MAGIC)) or b""
    size = int(source.seek(0, os.SEEK_END)) if is_parquet(head) and start == 0 else None
    source.seek(start)
    return size


class RangeServer:
    """The parent's side: reads what the child asks for and writes it to its standard input, until the deadline."""

    def __init__(self, source: BinaryIO, size: int, sink: BinaryIO) -> None:
        self._source = source
        self._size = size
        self._sink = sink.fileno()
        os.set_blocking(self._sink, False)

    def answer(self, message: dict[str, Any], deadline: float) -> float:
        """Send exactly the bytes asked for; returns the seconds in which the child let us wait.

        Raises FileRefused for an impossible range, or when the time is over.
        """
        at, left = message.get("at"), message.get("size")
        if not isinstance(at, int) or not isinstance(left, int) or not 0 < left <= RANGE_BYTES:
            raise _unsafe()
        if at < 0 or at + left > self._size:
            raise _unsafe()
        self._source.seek(at)
        waited = 0.0
        while left:
            piece = self._source.read(min(left, _PIECE_BYTES))
            if not piece:
                raise _unsafe()
            begun = time.monotonic()
            self._write(memoryview(piece), deadline)
            waited += time.monotonic() - begun
            left -= len(piece)
        return waited

    def _write(self, view: memoryview, deadline: float) -> None:
        while view:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([], [self._sink], [], left)[1]:
                raise refuse("too_slow", "Reading this file takes too long. Split it.")
            try:
                view = view[os.write(self._sink, view) :]
            except BrokenPipeError:
                return  # the child is gone; what it last said, or its exit status, tells why


class RangedFile:
    """The child's side: a file object for pyarrow that asks for what it reads."""

    closed = False

    def __init__(self, size: int, ask: Callable[[int, int], bytes]) -> None:
        self._size = size
        self._ask = ask
        self._at = 0
        self._taken = 0
        self.refused: FileRefused | None = None

    @property
    def touched(self) -> int:
        """How many of its bytes were read, as far as can be told: one read a second time counts only up to the size."""
        return min(self._taken, self._size)

    def read(self, size: int = -1) -> bytes:
        """The next bytes; a range that no honest file needs at once is refused."""
        size = min(size if size >= 0 else self._size, self._size - self._at)
        if size <= 0:
            return b""
        if size > RANGE_BYTES:
            self.refused = refuse(
                "too_much_memory", "Write the Parquet file with smaller pages and row groups."
            )
            raise self.refused
        data = self._ask(self._at, size)
        self._at += size
        self._taken += size
        return data

    def seek(self, at: int, whence: int = os.SEEK_SET) -> int:
        """Move; nothing is asked for yet."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = base + at
        return self._at

    def tell(self) -> int:
        """Where it stands."""
        return self._at

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def writable(self) -> bool:
        """It is not."""
        return False

    def close(self) -> None:
        """Nothing is held."""
        self.closed = True


def _unsafe() -> FileRefused:
    return refuse("broken_parser", "This file could not be read safely. Please report it.")
