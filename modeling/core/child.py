"""Parses an untrusted file in a limited child process: bytes in by pipe, msgpack rows out; the parent survives bombs.

The child is a fresh interpreter with an empty environment, so it holds no key of its parent's. Before it reads a
byte it loses the network (its own network namespace where the kernel allows one, and no free file descriptor for a
socket in any case) and the right to write files or start processes, and gets memory and CPU limits.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgpack

from modeling.core.columns import ColumnFacts
from modeling.core.tables import Budget, FileRefused, Layout, Reading, Row, RowError, refuse

CHUNK_BYTES = 1 << 18
FRAME_BYTES = 64 << 20
_LENGTH = struct.Struct(">I")
_ROOT = Path(__file__).resolve().parents[2]
_START = "import sys; sys.path.insert(0, {root!r}); from modeling.core.child_main import main; main()"


@dataclass(frozen=True)
class Limits:
    """What the child may use: address space, CPU seconds, wall seconds."""

    memory_bytes: int = 512 << 20
    cpu_seconds: int = 600
    wall_seconds: float = 900.0


@dataclass(frozen=True)
class Summary:
    """What is known when the last row is out: errors kept and counted, text after the last row, decoded rows."""

    rows: int
    errors: Sequence[RowError]
    errors_by_rule: dict[str, int]
    tail: str


@dataclass
class Parsed:
    """A file read by the child: layout and facts are there at once, rows stream, `summary` is set after the last."""

    layout: Layout
    facts: Sequence[ColumnFacts]
    batches: Iterator[list[Row]]
    summary: Summary | None = None
    _close: Callable[[], None] = field(default=lambda: None, repr=False)

    def close(self) -> None:
        """Stop the child, if it still runs."""
        self._close()


def parse_in_child(source: BinaryIO, reading: Reading, limits: Limits | None = None) -> Parsed:
    """Start parsing. Raises FileRefused here or while batches are drawn; the child never outlives `close()`."""
    child = _Child(source, reading, limits or Limits())
    try:
        head = child.receive("head")
        layout, facts = Layout.from_json(head["layout"]), [ColumnFacts(**one) for one in head["facts"]]
    except BaseException:
        child.stop()
        raise
    parsed = Parsed(layout=layout, facts=facts, batches=iter(()), _close=child.stop)
    parsed.batches = _batches(child, parsed, reading.budget)
    return parsed


def _batches(child: _Child, parsed: Parsed, budget: Budget) -> Iterator[list[Row]]:
    width, rows, size = len(parsed.layout.columns), 0, 0
    try:
        while True:
            message = child.receive("rows", "end")
            if message["kind"] == "end":
                errors = [RowError(*error) for error in message["errors"][:1_000]]
                parsed.summary = Summary(rows, errors, dict(message["by_rule"]), str(message["tail"]))
                return
            batch = [_row(packed, width) for packed in message["rows"]]
            rows += len(batch)
            size += child.last_bytes
            if rows > budget.rows or size > 2 * budget.decoded_bytes + FRAME_BYTES:
                raise refuse("file_too_large", f"Split the file: one may hold {budget.rows:,} rows.")
            yield batch
    finally:
        child.stop()


def _row(packed: Any, width: int) -> Row:
    """The child read hostile bytes, so what it says is checked as well."""
    line, values, raw = packed
    if not isinstance(line, int) or len(values) != width or not isinstance(raw, str | None):
        raise refuse("broken_parser", "This file could not be read safely. Please report it.")
    return Row(line, values, raw)


class _Child:
    """The process, a thread that feeds it, and a deadline."""

    def __init__(self, source: BinaryIO, reading: Reading, limits: Limits) -> None:
        self._limits = limits
        self._deadline = time.monotonic() + limits.wall_seconds
        self.last_bytes = 0
        self._source_error: BaseException | None = None
        settings = {"reading": asdict(reading), "limits": asdict(limits)}
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-I",
                "-S",
                "-c",
                _START.format(root=str(_ROOT)),
                json.dumps(settings),
                *_packages(),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"},
            cwd="/",
            close_fds=True,
            start_new_session=True,
        )
        self._out = cast(io.BufferedReader, self._process.stdout)
        self._feeder = threading.Thread(target=self._feed, args=(source,), daemon=True)
        self._feeder.start()

    def _feed(self, source: BinaryIO) -> None:
        sink = cast(BinaryIO, self._process.stdin)
        try:
            while data := source.read(CHUNK_BYTES):
                sink.write(data)
            sink.flush()
        except (BrokenPipeError, ValueError):
            pass  # the child has seen enough, or was stopped
        except BaseException as error:  # raised again in the parent's own thread
            self._source_error = error
            self._process.kill()
        finally:
            with contextlib.suppress(BrokenPipeError):
                sink.close()

    def receive(self, *kinds: str) -> dict[str, Any]:
        """The next message of one of these kinds; raises FileRefused when the file is refused or the child is gone."""
        head = self._read(_LENGTH.size)
        (size,) = _LENGTH.unpack(head)
        if size > FRAME_BYTES:
            raise refuse("broken_parser", "This file could not be read safely. Please report it.")
        self.last_bytes = size
        body = self._read(size)
        try:
            message = msgpack.unpackb(body, raw=False, strict_map_key=False)
        except (ValueError, msgpack.exceptions.UnpackException):
            message = {}
        if isinstance(message, dict) and message.get("kind") == "refused":
            raise FileRefused(RowError(*message["error"]))
        if not isinstance(message, dict) or message.get("kind") not in kinds:
            raise refuse("broken_parser", "This file could not be read safely. Please report it.")
        return message

    def _read(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            left = self._deadline - time.monotonic()
            if left <= 0 or not select.select([self._out], [], [], left)[0]:
                self.stop()
                raise refuse(
                    "too_slow", "Reading this file takes too long. Split it, or make its rows simpler."
                )
            piece = os.read(self._out.fileno(), size - len(parts))
            if not piece:
                raise self._gone()
            parts += piece
        return bytes(parts)

    def _gone(self) -> BaseException:
        code = self._process.wait()
        if self._source_error is not None:
            return self._source_error
        if code in (-signal.SIGXCPU, 128 + signal.SIGXCPU):
            return refuse("too_slow", "Reading this file takes too long. Split it, or make its rows simpler.")
        return refuse(
            "too_much_memory", "Reading this file needs too much memory. Split it, or make its rows smaller."
        )

    def stop(self) -> None:
        """Kill the child if it still runs, and collect it; a second call does nothing."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._feeder.join(timeout=0.5)  # a source that blocks keeps its daemon thread, never ours
        self._out.close()


def _packages() -> list[str]:
    """Where msgpack lies: the only package that the child needs beyond the standard library."""
    return [str(Path(cast(str, msgpack.__file__)).parents[1])]
