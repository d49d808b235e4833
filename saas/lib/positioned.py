"""A readable, seekable view whose subclass knows its size and reads from its position."""

from __future__ import annotations

import io
import os


class Positioned(io.RawIOBase):
    """Everything of a seekable reader but `readinto`: the subclass sets `size` (bytes) and moves `_position` on."""

    size: int

    def __init__(self) -> None:
        super().__init__()
        self._position = 0

    def readable(self) -> bool:
        """Always true."""
        return True

    def seekable(self) -> bool:
        """Always true."""
        return True

    def tell(self) -> int:
        """The offset in bytes of the next read."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to an offset in bytes; raises ValueError before the start."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise ValueError("A position before the start.")
        self._position = base + offset
        return self._position
