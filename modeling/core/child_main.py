"""The limited child: gives up its rights, then reads bytes on standard input and writes framed rows on output."""

from __future__ import annotations

import codecs
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
_READ_BYTES = 1 << 18
_BATCH_ROWS = 512
_BATCH_CHARACTERS = 1 << 19
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_SET_DUMPABLE = 1, 38, 4


def main() -> None:
    """Entry point: argv is the settings as JSON and the folders of packages to import from."""
    settings = json.loads(sys.argv[1])
    sys.path.extend(sys.argv[2:])
    import msgpack  # noqa: F401 - everything is imported before the limits close the door to files

    from modeling.core import columns, tables, tables_csv, tables_jsonl  # noqa: F401

    for name in tables.ENCODINGS:
        codecs.lookup(name)
    give_up_rights(settings["limits"])
    try:
        _work(settings["reading"])
    except MemoryError:
        os._exit(3)


def give_up_rights(limits: dict[str, Any]) -> None:
    """No network, no new files, processes or privileges; memory and CPU seconds bounded."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if libc.unshare(_CLONE_NEWNET) != 0:  # an ordinary user needs a namespace of users around it
            libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET)
        libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
        resource.setrlimit(resource.RLIMIT_AS, (limits["memory_bytes"],) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (limits["cpu_seconds"], limits["cpu_seconds"] + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    os.closerange(3, 256)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (3, 3)
    )  # 0, 1 and 2 are taken: no socket, no file can be opened


def _chunks() -> Iterator[bytes]:
    while data := os.read(0, _READ_BYTES):
        yield data


def _send(message: dict[str, Any]) -> None:
    import msgpack

    body = msgpack.packb(message, use_bin_type=True)
    view = memoryview(_LENGTH.pack(len(body)) + body)
    while view:
        view = view[os.write(1, view) :]


def _work(settings: dict[str, Any]) -> None:
    from modeling.core import tables

    budget = tables.Budget(**settings.pop("budget"))
    findings = tables.Findings()
    try:
        table = tables.open_table(_chunks(), tables.Reading(**settings, budget=budget), findings)
        rows = _stream(table)
        count = _send_rows(rows, budget.rows)
    except tables.FileRefused as refused:
        error = refused.error
        _send({"kind": "refused", "error": [error.line, error.column, error.rule, error.fix]})
        return
    kept = [[error.line, error.column, error.rule, error.fix] for error in findings.kept]
    _send(
        {"kind": "end", "errors": kept, "by_rule": dict(findings.by_rule), "tail": table.tail, "rows": count}
    )


def _stream(table: Any) -> Iterator[Any]:
    """Send the head once enough rows are sampled, then hand on every row, the sampled ones first."""
    from modeling.core import columns, tables

    rows, sample, size = iter(table), [], 0
    for row in rows:
        sample.append(row)
        size += sum(len(value) if isinstance(value, str) else 64 for value in row.values)
        if len(sample) >= tables.SAMPLE_ROWS or size >= tables.SAMPLE_BYTES:
            break
    facts = columns.measure(table.layout.columns, [row.values for row in sample])
    _send({"kind": "head", "layout": table.layout.as_json(), "facts": [fact.as_json() for fact in facts]})
    yield from sample
    del sample
    yield from rows


def _send_rows(rows: Iterator[Any], most: int) -> int:
    from modeling.core import tables

    batch: list[Any] = []
    size = count = 0
    for row in rows:
        batch.append((row.line, row.values, row.raw))
        count += 1
        if count > most:
            raise tables.refuse("file_too_large", f"Split the file: one may hold {most:,} rows.")
        size += sum(len(value) if isinstance(value, str) else 256 for value in row.values) + len(
            row.raw or ""
        )
        if len(batch) >= _BATCH_ROWS or size >= _BATCH_CHARACTERS:
            _send({"kind": "rows", "rows": batch})
            batch, size = [], 0
    if batch:
        _send({"kind": "rows", "rows": batch})
    return count
