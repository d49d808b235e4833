"""Parses an untrusted file in a limited child process: bytes in by pipe, msgpack rows out; the parent survives bombs.

The child is a fresh interpreter with an empty environment, so it holds no key of its parent's. Before it reads a
byte it loses the network (its own network namespace where the kernel allows one, and no free file descriptor for a
socket in any case) and the right to write files or start processes, and gets memory and CPU limits.
"""

from __future__ import annotations

import contextlib
import fcntl
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

from modeling.core.child_ranges import RangeServer, parquet_size
from modeling.core.columns import ColumnFacts
from modeling.core.tables import Budget, FileRefused, Layout, Reading, Row, RowError, refuse
from modeling.core.tables_fast import Block, unpack

CHUNK_BYTES = 1 << 20
FRAME_BYTES = 64 << 20
_LENGTH = struct.Struct(">I")
_ROOT = Path(__file__).resolve().parents[2]
_ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # Pieces of a mebibyte come and go: the allocator keeps their pages, which costs a quarter less than new ones.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(128 << 20),
}
_START = "import sys; sys.path.insert(0, {root!r}); from modeling.core.child_main import main; main()"


@dataclass(frozen=True)
class Limits:
    """What the child may use: address space, CPU seconds, and seconds in which the parent waits for its next message.

    4 GiB of plain CSV take 40 to 120 s of CPU; what the parent does with rows meanwhile does not count.
    """

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
    """A file read by the child: layout and facts are there at once, rows stream, `summary` is set after the last.

    `pieces` are blocks of plain text rows where the file allows it, else lists of rows; draw these or `batches`.
    """

    layout: Layout
    facts: Sequence[ColumnFacts]
    pieces: Iterator[Block | list[Row]]
    summary: Summary | None = None
    _close: Callable[[], None] = field(default=lambda: None, repr=False)

    @property
    def batches(self) -> Iterator[list[Row]]:
        """The rows of the pieces that were not drawn yet, in lists."""
        return (piece.rows() if isinstance(piece, Block) else piece for piece in self.pieces)

    def close(self) -> None:
        """Stop the child, if it still runs."""
        self._close()


def parse_in_child(
    source: BinaryIO,
    reading: Reading,
    limits: Limits | None = None,
    start: Callable[[dict[str, Any]], subprocess.Popen[bytes]] | None = None,
) -> Parsed:
    """Start parsing. Raises FileRefused here or while pieces are drawn; the child never outlives `close()`.

    `start` makes the process from the settings; a fresh interpreter when it is not given.
    """
    child = _Child(source, reading, limits or Limits(), start or start_interpreter)
    try:
        head = child.receive("head")
        layout, facts = Layout.from_json(head["layout"]), [ColumnFacts(**one) for one in head["facts"]]
    except BaseException:
        child.stop()
        raise
    parsed = Parsed(layout=layout, facts=facts, pieces=iter(()), _close=child.stop)
    parsed.pieces = _pieces(child, parsed, reading.budget)
    return parsed


def _pieces(child: _Child, parsed: Parsed, budget: Budget) -> Iterator[Block | list[Row]]:
    width, rows, size = len(parsed.layout.columns), 0, 0
    try:
        while True:
            message = child.receive("rows", "block", "end")
            if message["kind"] == "end":
                errors = [RowError(*error) for error in message["errors"][:1_000]]
                parsed.summary = Summary(rows, errors, dict(message["by_rule"]), str(message["tail"]))
                return
            batch: Block | list[Row]
            if message["kind"] == "block":
                batch = unpack(message["block"], parsed.layout)
            else:
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

    def __init__(
        self,
        source: BinaryIO,
        reading: Reading,
        limits: Limits,
        start: Callable[[dict[str, Any]], subprocess.Popen[bytes]],
    ) -> None:
        self._limits = limits
        self._read_at = time.monotonic()
        self._deadline = self._read_at + limits.wall_seconds
        self.last_bytes = 0
        self._source_error: BaseException | None = None
        size = parquet_size(source)
        settings = {"reading": asdict(reading), "limits": asdict(limits), "size": size}
        self._process = start(settings)
        self._out = cast(io.BufferedReader, self._process.stdout)
        for pipe in (self._process.stdin, self._out):
            _widen(cast(io.BufferedIOBase, pipe))
        self._feeder = threading.Thread(target=self._feed, args=(source,), daemon=True)
        self._ranges: RangeServer | None = None
        if size is None:
            self._feeder.start()
        else:
            sink = cast(BinaryIO, self._process.stdin)
            self._ranges = RangeServer(source, size, sink)

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
        while (message := self._message()).get("kind") == "range" and self._ranges is not None:
            self._read_at += self._ranges.answer(
                message, self._deadline
            )  # the child's own time, as in `_read`
        if message.get("kind") == "refused":
            raise FileRefused(RowError(*message["error"]))
        if message.get("kind") not in kinds:
            raise refuse("broken_parser", "This file could not be read safely. Please report it.")
        return message

    def _message(self) -> dict[str, Any]:
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
        return message if isinstance(message, dict) else {}

    def _read(self, size: int) -> memoryview:
        self._deadline += time.monotonic() - self._read_at
        parts = memoryview(bytearray(size))
        rest = parts
        while rest:
            left = self._deadline - time.monotonic()
            if left <= 0 or not select.select([self._out], [], [], left)[0]:
                self.stop()
                raise refuse(
                    "too_slow", "Reading this file takes too long. Split it, or make its rows simpler."
                )
            got = os.readv(self._out.fileno(), [rest])
            if not got:
                raise self._gone()
            rest = rest[got:]
        self._read_at = time.monotonic()
        return parts

    def _gone(self) -> BaseException:
        code = self._process.wait()
        if self._source_error is not None:
            return self._source_error
        if code in (-signal.SIGXCPU, 128 + signal.SIGXCPU):
            return refuse("too_slow", "Reading this file takes too long. Split it, or make its rows simpler.")
        if code in (-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGFPE, -signal.SIGILL):
            return refuse("parquet", "This file is damaged. Write it again and upload it.")
        if code == 1:
            return refuse("broken_parser", "This file could not be read safely. Please report it.")
        return refuse(
            "too_much_memory", "Reading this file needs too much memory. Split it, or make its rows smaller."
        )

    def stop(self) -> None:
        """Kill the child if it still runs, and collect it; a second call does nothing."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        if self._ranges is None:
            self._feeder.join(timeout=0.5)  # a source that blocks keeps its daemon thread, never ours
        else:
            cast(BinaryIO, self._process.stdin).close()
        self._out.close()


def start_interpreter(settings: dict[str, Any]) -> subprocess.Popen[bytes]:
    """A fresh interpreter with an empty environment and pipes for its input and output."""
    begin = _START.format(root=str(_ROOT))
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", begin, json.dumps(settings), *packages()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=_ENVIRONMENT,
        cwd="/",
        close_fds=True,
        start_new_session=True,
    )


def _widen(pipe: io.BufferedIOBase) -> None:
    """Let a pipe hold a mebibyte, so that the two processes wait for one another less; only Linux can."""
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(PermissionError):  # the user's pipes may be full: then it stays as it is
            fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, CHUNK_BYTES)


def packages() -> list[str]:
    """Where msgpack and numpy lie: the only packages that the child needs beyond the standard library."""
    return [str(Path(cast(str, msgpack.__file__)).parents[1])]
