"""Lines of JSON kept beside the database and only ever added to: what a restored backup must be told again."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any


def append(folder: Path, records: Iterable[dict[str, Any]], *, at: datetime) -> None:
    """Add records to the month's file and wait until the disk has them; safe among processes."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = folder / f"{at:%Y-%m}.jsonl"
    is_new = not file.exists()
    with os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "r+b", buffering=0) as sink:
        fcntl.flock(sink, fcntl.LOCK_EX)
        text = "".join(json.dumps(record, sort_keys=True) + "\n" for record in records)
        size = os.fstat(sink.fileno()).st_size
        is_torn = size > 0 and os.pread(sink.fileno(), 1, size - 1) != b"\n"  # a writer died in its line
        rest = memoryview((("\n" if is_torn else "") + text).encode())
        while rest:
            rest = rest[sink.write(rest) :]
        os.fsync(sink.fileno())
    if is_new:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def lines(folder: Path, *, since: datetime | None = None) -> Iterator[dict[str, Any]]:
    """Every whole record of the months from `since` on, oldest file first; a torn line is passed over."""
    first = f"{since:%Y-%m}.jsonl" if since is not None else ""
    for file in sorted(folder.glob("*.jsonl")):
        if file.name < first:
            continue
        with file.open("rb") as source:
            for line in source:
                record = _record(line)
                if record is not None:
                    yield record


def _record(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
