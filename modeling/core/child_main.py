"""The limited child: gives up its rights, then reads bytes on standard input and writes framed rows on output."""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import struct
import sys
from collections.abc import Iterator
from typing import Any

_LENGTH = struct.Struct(">I")
_READ_BYTES = 1 << 20
_FAST_FROM_BYTES = 1 << 20  # a smaller file is read before numpy is loaded
_TRIM_EVERY = (
    32  # reads between two returns of free memory: the heap gets holes by pieces of ever other sizes
)
_BATCH_ROWS = 512
_BATCH_CHARACTERS = 1 << 19
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_SET_DUMPABLE = 1, 38, 4


def main() -> None:
    """Entry point: argv is the settings as JSON and the folders of packages to import from."""
    settings = json.loads(sys.argv[1])
    sys.path.extend(sys.argv[2:])
    import msgpack  # noqa: F401 - everything is imported before the limits close the door to files

    from modeling.core import columns, tables, tables_csv, tables_fast, tables_jsonl, text_encodings  # noqa: F401

    text_encodings.prepare(settings["reading"]["encoding"])
    size = settings["size"]  # of a Parquet file, which is read by ranges; None: the file streams
    if size is not None:
        from modeling.core import tables_parquet  # noqa: F401
    beginning = _take(_FAST_FROM_BYTES) if size is None else b""
    if len(beginning) >= _FAST_FROM_BYTES:
        tables_fast.prepare()
    give_up_rights(settings["limits"])
    work(settings["reading"], beginning, size)


def give_up_rights(limits: dict[str, Any]) -> None:
    """No network, no new files, processes or privileges; memory and CPU seconds bounded."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if libc.unshare(_CLONE_NEWNET) != 0:  # an ordinary user needs a namespace of users around it
            libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
        libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    close_doors(limits)


def close_doors(limits: dict[str, Any]) -> None:
    """The limits alone: memory, CPU seconds, and no file, process or socket from here on."""
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (limits["memory_bytes"],) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (limits["cpu_seconds"], limits["cpu_seconds"] + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    os.closerange(3, 256)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (3, 3)
    )  # 0, 1 and 2 are taken: no socket, no file can be opened


def _take(size: int) -> bytes:
    """So many bytes of standard input as they are; fewer only at its end."""
    room = memoryview(bytearray(size))
    filled = 0
    while filled < size and (got := os.readv(0, [room[filled:]])):
        filled += got
    return bytes(room[:filled])


def _chunks(beginning: bytes) -> Iterator[bytes]:
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
    number = 0
    yield beginning
    while data := _take(_READ_BYTES):
        number += 1
        if trim is not None and number % _TRIM_EVERY == 0:
            trim(0)
        yield data


def _send(message: dict[str, Any]) -> None:
    import msgpack

    body = msgpack.packb(message, use_bin_type=True)
    view = memoryview(_LENGTH.pack(len(body)) + body)
    while view:
        view = view[os.write(1, view) :]


def _ask(at: int, size: int) -> bytes:
    """A range of the file, from the parent."""
    _send({"kind": "range", "at": at, "size": size})
    data = _take(size)
    if len(data) < size:
        os._exit(4)  # the parent has gone
    return data


def _open(beginning: bytes, size: int | None, reading: Any, findings: Any) -> Any:
    """The table: by ranges of a Parquet file of `size` bytes, else from the stream."""
    from modeling.core import tables

    if size is None:
        return tables.open_table(_chunks(beginning), reading, findings)
    from modeling.core import child_ranges, tables_parquet

    return tables_parquet.ParquetTable(child_ranges.RangedFile(size, _ask), reading, findings)


def work(settings: dict[str, Any], beginning: bytes, size: int | None) -> None:
    """Read the file and send what is in it; out of memory, the process ends."""
    try:
        _work(settings, beginning, size)
    except MemoryError:
        os._exit(3)


def _work(settings: dict[str, Any], beginning: bytes, size: int | None) -> None:
    from modeling.core import tables

    budget = tables.Budget(**settings.pop("budget"))
    findings = tables.Findings()
    try:
        table = _open(beginning, size, tables.Reading(**settings, budget=budget), findings)
        count = _send_pieces(_stream(table), budget.rows)
    except tables.FileRefused as refused:
        error = refused.error
        _send({"kind": "refused", "error": [error.line, error.column, error.rule, error.fix]})
        return
    kept = [[error.line, error.column, error.rule, error.fix] for error in findings.kept]
    _send(
        {"kind": "end", "errors": kept, "by_rule": dict(findings.by_rule), "tail": table.tail, "rows": count}
    )


def _stream(table: Any) -> Iterator[Any]:
    """Send the head once enough rows are sampled, then hand on every piece, the sampled ones first."""
    from modeling.core import columns, tables

    pieces, held, sample, size = _pieces(table), [], [], 0
    for piece in pieces:
        held.append(piece)
        for row in (piece,) if isinstance(piece, tables.Row) else piece.rows():
            sample.append(row.values)
            size += sum(len(value) if isinstance(value, str) else 64 for value in row.values)
            if len(sample) >= tables.SAMPLE_ROWS or size >= tables.SAMPLE_BYTES:
                break
        else:
            continue
        break
    facts = columns.measure(table.layout.columns, sample)
    _send({"kind": "head", "layout": table.layout.as_json(), "facts": [fact.as_json() for fact in facts]})
    del sample
    yield from held
    del held
    yield from pieces


def _pieces(table: Any) -> Iterator[Any]:
    """Rows, and blocks of rows where the table gives them."""
    pieces = getattr(table, "pieces", None)
    return pieces() if pieces is not None else iter(table)


def _send_pieces(pieces: Iterator[Any], most: int) -> int:
    from modeling.core import tables

    batch: list[Any] = []
    size = count = 0
    for piece in pieces:
        is_row = isinstance(piece, tables.Row)
        count += 1 if is_row else len(piece)
        if count > most:
            raise tables.refuse("file_too_large", f"Split the file: one may hold {most:,} rows.")
        if is_row:
            batch.append((piece.line, piece.values, piece.raw))
            size += sum(len(value) if isinstance(value, str) else 256 for value in piece.values)
            size += len(piece.raw or "")
        if batch and (not is_row or len(batch) >= _BATCH_ROWS or size >= _BATCH_CHARACTERS):
            _send({"kind": "rows", "rows": batch})
            batch, size = [], 0
        if not is_row:
            _send({"kind": "block", "block": piece.packed()})
    if batch:
        _send({"kind": "rows", "rows": batch})
    return count
