"""Rows kept per person: each frame is sealed under its unit's own key, so one person can be shredded and nobody else.

Layout of the plaintext of a segments object: MAGIC, then frames of handle (16) | nonce (12) | length (u32) |
AES-256-GCM ciphertext and tag. A frame's place (tenant | dataset | version | segment number) and handle are bound in,
so that frames cannot be moved, renamed or swapped. The object around them is a sealed stream, which also shows a cut
tail. A frame's plaintext is msgpack rows; rows of one unit stand in adjacent frames. A row is [line, values, raw], or,
since version 2, a row of CSV as it stands in its file: [line, text, marks] with delimiter and quotation mark as marks,
and a fourth element when the text, then with its line end, is not what `render` writes.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, Protocol

import msgpack
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from modeling.core.tables import Row
from modeling.core.tables_fast import Block, cut_line

MAGIC: Final = b"CLSEG\x02"
_READABLE: Final = (b"CLSEG\x01", MAGIC)
HANDLE_BYTES: Final = 16
KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
FRAME_ROWS_BYTES: Final = 1 << 20  # a unit with more than this goes into several frames
MOST_FRAME_BYTES: Final = 32 << 20
_HEAD: Final = struct.Struct(">16s12sI")
_RANDOM_BYTES: Final = 1 << 16


class SegmentBroken(Exception):
    """The frame is not what was sealed, or not for this key and place."""


class Sink(Protocol):
    """Something that takes bytes, such as a vault writer."""

    def write(self, data: bytes, /) -> int:
        """Take all of `data`."""


@dataclass(frozen=True)
class Place:
    """Where frames belong; a frame moved elsewhere does not open."""

    tenant: str
    dataset: str
    version: int

    def bound(self) -> bytes:
        """The place with lengths before its parts, so that no two places read the same."""
        parts = (self.tenant.encode(), self.dataset.encode(), str(self.version).encode())
        return b"cloister/segment/v1" + b"".join(struct.pack(">I", len(part)) + part for part in parts)


@dataclass(frozen=True, slots=True)
class Frame:
    """One sealed frame as read: whose it is and what opens it."""

    segment: int
    handle: bytes
    nonce: bytes
    sealed: bytes


class Randomness:
    """The operating system's random bytes, drawn in blocks: a call for each key would cost more than AES."""

    def __init__(self) -> None:
        self._block = b""
        self._at = 0

    def take(self, size: int) -> bytes:
        """`size` fresh random bytes."""
        if self._at + size > len(self._block):
            self._block, self._at = os.urandom(_RANDOM_BYTES), 0
        self._at += size
        return self._block[self._at - size : self._at]


class KeyRing:
    """Makes and opens unit keys wrapped by one dataset's key, bound to the dataset and the unit's handle."""

    def __init__(self, dataset_key: bytes, dataset: str) -> None:
        self._cipher = AESGCM(dataset_key)
        self._bound = b"cloister/unit-key/v1|" + dataset.encode() + b"|"
        self._random = Randomness()

    def make(self, handle: bytes) -> tuple[bytes, bytes]:
        """A fresh unit key and its wrapped form (60 bytes)."""
        drawn = self._random.take(KEY_BYTES + NONCE_BYTES)
        key, nonce = drawn[:KEY_BYTES], drawn[KEY_BYTES:]
        return key, nonce + self._cipher.encrypt(nonce, key, self._bound + handle)

    def open(self, handle: bytes, wrapped: bytes) -> bytes:
        """The unit key; raises SegmentBroken when it was wrapped for another unit, dataset or key."""
        try:
            return self._cipher.decrypt(wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], self._bound + handle)
        except (InvalidTag, ValueError):
            raise SegmentBroken("A unit key does not open under this dataset's key.") from None


class FrameWriter:
    """Seals units one after another into a sink."""

    def __init__(self, sink: Sink, place: Place) -> None:
        self._sink = sink
        self._bound = place.bound()
        self._random = Randomness()
        self._pending: list[bytes] = [MAGIC]
        self._pending_bytes = 0
        self.segments = 0

    def write(self, handle: bytes, key: bytes, rows: Iterable[bytes]) -> None:
        """Seal a unit's packed rows under its key, in frames of about a mebibyte of plaintext."""
        cipher = AESGCM(key)
        part: list[bytes] = []
        size = 0
        for row in rows:
            if part and size + len(row) > FRAME_ROWS_BYTES:
                self._frame(cipher, handle, b"".join(part))
                part, size = [], 0
            part.append(row)
            size += len(row)
        if part:
            self._frame(cipher, handle, b"".join(part))

    def _frame(self, cipher: AESGCM, handle: bytes, plain: bytes) -> None:
        nonce = self._random.take(NONCE_BYTES)
        sealed = cipher.encrypt(nonce, plain, self._bound + struct.pack(">Q", self.segments) + handle)
        self.segments += 1
        self._pending += (_HEAD.pack(handle, nonce, len(sealed)), sealed)
        self._pending_bytes += len(sealed)
        if self._pending_bytes >= _RANDOM_BYTES:
            self.flush()

    def flush(self) -> None:
        """Hand what is held back to the sink; call once after the last unit."""
        self._sink.write(b"".join(self._pending))
        self._pending, self._pending_bytes = [], 0


def read_frames(source: BinaryIO) -> Iterator[Frame]:
    """The frames of a segments object in order, still sealed. Raises SegmentBroken on a broken layout."""
    if _exactly(source, len(MAGIC)) not in _READABLE:
        raise SegmentBroken("These are no segments of a known format.")
    segment = 0
    while head := _exactly(source, _HEAD.size):
        if len(head) != _HEAD.size:
            raise SegmentBroken("The segments end in the middle of a frame.")
        handle, nonce, length = _HEAD.unpack(head)
        if not TAG_BYTES <= length <= MOST_FRAME_BYTES:
            raise SegmentBroken("A frame has an impossible length.")
        sealed = _exactly(source, length)
        if len(sealed) != length:
            raise SegmentBroken("The segments end in the middle of a frame.")
        yield Frame(segment, handle, nonce, sealed)
        segment += 1


def _exactly(source: BinaryIO, size: int) -> bytes:
    data = source.read(size)
    while len(data) < size:
        more = source.read(size - len(data))
        if not more:
            break
        data += more
    return data


class FrameReader:
    """Opens frames of one place."""

    def __init__(self, place: Place) -> None:
        self._bound = place.bound()

    def open(self, frame: Frame, key: bytes) -> Iterator[Row]:
        """The rows of a frame. Raises SegmentBroken when the key, the place or a bit is wrong."""
        associated = self._bound + struct.pack(">Q", frame.segment) + frame.handle
        try:
            plain = AESGCM(key).decrypt(frame.nonce, frame.sealed, associated)
        except InvalidTag:
            raise SegmentBroken("A frame does not open under this key and place.") from None
        return unpack_rows(plain)


_PACKER = msgpack.Packer(use_bin_type=True)


def pack_row(line: int, values: Sequence[Any], raw: str | None) -> bytes:
    """One row as it stands in a frame."""
    return _PACKER.pack((line, values, raw))  # type: ignore[no-any-return]


def pack_texts(block: Block, lines: Sequence[str]) -> list[bytes]:
    """The rows of a block, whose `lines()` these are, as they stand in a frame."""
    pack, marks = _PACKER.pack, block.delimiter + block.quote
    packed = [pack((number, line, marks)) for number, line in enumerate(lines, block.line)]
    for at in block.raw:
        packed[at] = pack((block.line + at, lines[at] + block.newline, marks, True))
    return packed


def unpack_rows(plain: bytes) -> Iterator[Row]:
    """The rows of a frame's plaintext."""
    unpacker = msgpack.Unpacker(raw=False, strict_map_key=False, max_buffer_size=MOST_FRAME_BYTES)
    unpacker.feed(plain)
    for line, values, *rest in unpacker:
        if isinstance(values, str):
            cells = cut_line(values.rstrip("\r\n") if rest[1:] else values, rest[0][0], rest[0][1:])
            yield Row(line, cells, values if rest[1:] else None)
        else:
            yield Row(line, values, rest[0])
