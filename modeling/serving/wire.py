"""Frames between gateway and engine: length-prefixed msgpack, many requests on one connection.

A frame is a 4-byte big-endian length and a msgpack array `[kind, id, body]`. HELLO opens both directions and carries
the wire version. ASK starts request `id` (chosen by the asker, body has `op` and `deadline_ms`, the time left); the
answer is any number of PART and then one DONE or FAIL with the same id. CANCEL by the asker ends it early.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import msgpack

VERSION = 1
MAX_FRAME_BYTES = 16 * 1024 * 1024
MAX_ID = 2**63 - 1
_LENGTH = struct.Struct(">I")


class Kind(IntEnum):
    """What a frame says."""

    HELLO = 0
    ASK = 1
    CANCEL = 2
    PART = 3
    DONE = 4
    FAIL = 5


class WireBroken(Exception):
    """The bytes are not frames of this protocol: close the connection."""


class EngineRefusal(Exception):
    """The engine said no: a code for programs, a sentence for people, and how long to wait when that helps."""

    def __init__(self, code: str, message: str, *, retry_after_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retry_after_seconds = retry_after_seconds

    def body(self) -> dict[str, Any]:
        """The FAIL frame's body."""
        return {"code": self.code, "message": self.message, "retry_after_seconds": self.retry_after_seconds}


@dataclass(frozen=True, slots=True)
class Frame:
    """One message. `id` is 0 for HELLO."""

    kind: Kind
    id: int
    body: Mapping[str, Any] = field(default_factory=dict)


def encode(frame: Frame) -> bytes:
    """The bytes of a frame; raises WireBroken when it is larger than the bound."""
    payload: bytes = msgpack.packb([int(frame.kind), frame.id, frame.body], use_bin_type=True)
    if len(payload) > MAX_FRAME_BYTES:
        raise WireBroken(f"a frame of {len(payload)} bytes is over the bound of {MAX_FRAME_BYTES}")
    return _LENGTH.pack(len(payload)) + payload


def hello() -> bytes:
    """The first frame of either side."""
    return encode(Frame(Kind.HELLO, 0, {"version": VERSION}))


def check_hello(frame: Frame) -> None:
    """Raise WireBroken unless `frame` opens a connection of our version."""
    if frame.kind is not Kind.HELLO:
        raise WireBroken("the first frame must be HELLO")
    if frame.body.get("version") != VERSION:
        raise WireBroken(f"the other side speaks version {frame.body.get('version')!r}, this one {VERSION}")


class Decoder:
    """Turns a stream of bytes into frames; keeps what is incomplete, never more than one frame's bound."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Frames completed by `data`, in order. Raises WireBroken on anything that is not a frame."""
        self._buffer += data
        frames: list[Frame] = []
        start = 0
        while len(self._buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, start)
            if not 0 < length <= MAX_FRAME_BYTES:
                raise WireBroken(f"a frame announces {length} bytes, the bound is {MAX_FRAME_BYTES}")
            end = start + _LENGTH.size + length
            if len(self._buffer) < end:
                break
            frames.append(_parse(bytes(self._buffer[start + _LENGTH.size : end])))
            start = end
        del self._buffer[:start]
        return frames


def _parse(payload: bytes) -> Frame:
    try:
        message = msgpack.unpackb(payload, raw=False, strict_map_key=True)
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise WireBroken("a frame is not msgpack") from error
    if not isinstance(message, list) or len(message) != 3:
        raise WireBroken("a frame is not [kind, id, body]")
    kind, number, body = message
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= MAX_ID:
        raise WireBroken("a frame's id is not a whole number in range")
    if not isinstance(body, dict):
        raise WireBroken("a frame's body is not a map")
    if isinstance(kind, bool) or not isinstance(kind, int) or kind not in Kind._value2member_map_:
        raise WireBroken("a frame is of no known kind")
    return Frame(Kind(kind), number, body)
