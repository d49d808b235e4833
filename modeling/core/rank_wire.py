"""Frames between a job and its ranks over a local socket: msgpack of dataclasses and arrays, never pickle."""

from __future__ import annotations

import dataclasses
import socket
import struct
import typing
from collections.abc import Mapping
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import msgpack
import numpy as np

from modeling.core.types import (
    CannotTrain,
    Charge,
    Checkpoint,
    CoreError,
    Event,
    HeldOut,
    Phase,
    Plan,
    Progress,
    Trained,
    TrainingData,
)

_LENGTH = struct.Struct(">Q")
_ARRAY = 1  # msgpack extension type
_EVENTS: dict[str, type] = {
    kind.__name__: kind for kind in (Phase, Charge, Progress, HeldOut, Checkpoint, Trained)
}


class Hangup(Exception):
    """The other side closed the connection."""


class Link:
    """One connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def send(self, message: Any) -> None:
        """A message of plain values, arrays, and dataclasses (sent as their fields); raises Hangup."""
        body = msgpack.packb(message, default=_plain, strict_types=False)
        try:
            self._connection.sendall(_LENGTH.pack(len(body)))
            self._connection.sendall(body)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Hangup from error

    def receive(self) -> Any:
        """The next message; raises Hangup at the end."""
        (size,) = _LENGTH.unpack(self._read(_LENGTH.size))
        return msgpack.unpackb(self._read(size), ext_hook=_array, strict_map_key=False)

    def _read(self, size: int) -> bytes:
        found = bytearray(size)
        view, done = memoryview(found), 0
        while done < size:
            try:
                count = self._connection.recv_into(view[done:], min(size - done, 1 << 24))
            except ConnectionResetError as error:
                raise Hangup from error
            if not count:
                raise Hangup
            done += count
        return bytes(found)

    def close(self) -> None:
        """Close this side."""
        self._connection.close()


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, np.ndarray):
        data = np.ascontiguousarray(value)
        return msgpack.ExtType(_ARRAY, msgpack.packb([data.dtype.str, list(value.shape), data.tobytes()]))
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"cannot send {type(value).__name__}")


def _array(code: int, data: bytes) -> Any:
    if code != _ARRAY:
        raise ValueError("unknown extension type")
    kind, shape, body = msgpack.unpackb(data)
    if np.dtype(kind).kind not in "fiub":
        raise ValueError("only numbers are sent as arrays")
    return np.frombuffer(body, dtype=kind).reshape(shape).copy()


def event_message(event: Event) -> dict[str, Any]:
    """An event by its name and fields."""
    return {"event": type(event).__name__, "fields": event}


def error_message(error: CoreError) -> dict[str, Any]:
    """An expected refusal, so that it is one on the other side as well."""
    return {"refused": error.code, "message": error.message, "cannot_train": isinstance(error, CannotTrain)}


def event_of(message: Mapping[str, Any]) -> Event:
    """The inverse of `event_message`; raises the CoreError of an `error_message`."""
    if "refused" in message:
        kind = CannotTrain if message["cannot_train"] else CoreError
        raise kind(message["message"], code=message["refused"])
    found: Event = build(_EVENTS[message["event"]], message["fields"])
    return found


def job_of(message: Mapping[str, Any]) -> tuple[Plan, TrainingData, Checkpoint | None]:
    """The plan, data and checkpoint that a job sent."""
    resume = message["resume"]
    return (
        build(Plan, message["plan"]),
        build(TrainingData, message["data"]),
        None if resume is None else build(Checkpoint, resume),
    )


def build(kind: Any, value: Any) -> Any:
    """A value of the annotated type from plain values: dataclasses from their fields, tuples from lists."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        return kind(**{name: build(hints[name], one) for name, one in value.items()})
    if get_origin(kind) in (UnionType, typing.Union):
        inner = [one for one in get_args(kind) if one is not type(None)]
        return value if value is None or len(inner) > 1 else build(inner[0], value)
    if get_origin(kind) is tuple and value is not None:
        return tuple(build(get_args(kind)[0], one) for one in value)
    return value
