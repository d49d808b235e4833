"""The limited child: reads what is good, names what is bad, survives bombs, and has nothing to steal or to misuse."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest

from modeling.core.child import Limits, Parsed, parse_in_child
from modeling.core.tables import Budget, FileRefused, Reading

MIB = 1 << 20
SMALL = Budget(decoded_bytes=3 * MIB)


class Stream:
    """A file that is made while it is read."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks

    def read(self, size: int) -> bytes:
        """The next chunk, whatever the size asked for."""
        return next(self._chunks, b"")


def forever(chunk: bytes, *first: bytes) -> Iterator[bytes]:
    """Some chunks, then one without end."""
    yield from first
    while True:
        yield chunk


def parse(
    source: Any, name: str = "x.csv", *, limits: Limits | None = None, budget: Budget = SMALL
) -> Parsed:
    """Read everything; rows are dropped."""
    parsed = parse_in_child(cast(BinaryIO, source), Reading(name, budget=budget), limits)
    for _ in parsed.pieces:
        pass
    return parsed


def test_it_works() -> None:
    parsed = parse_in_child(io.BytesIO(b"a,b\n1,w x y z v\n2\n3,words in a row here\n"), Reading("x.csv"))
    assert parsed.layout.columns == ("a", "b")
    assert [fact.kind for fact in parsed.facts] == ["number", "text"]
    rows = [row for batch in parsed.batches for row in batch]
    assert [(row.line, row.values) for row in rows] == [
        (2, ["1", "w x y z v"]),
        (4, ["3", "words in a row here"]),
    ]
    assert parsed.summary is not None
    assert [(error.line, error.rule) for error in parsed.summary.errors] == [(3, "ragged")]


def test_many_rows_arrive_in_order() -> None:
    content = b"a,b\n" + b"".join(b"%d,x%d\n" % (n, n) for n in range(60_000))
    parsed = parse_in_child(io.BytesIO(content), Reading("x.csv"))
    rows = [row.values[0] for batch in parsed.batches for row in batch]
    assert rows == [str(n) for n in range(60_000)]


NOISE = random.Random(3).randbytes(200_000)
TALK = b'{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}\n'
REFUSED: dict[str, tuple[str, Callable[[], Any], str]] = {
    "nothing": ("x.csv", list, "empty"),
    "only a byte order mark": ("x.csv", lambda: [b"\xef\xbb\xbf"], "empty"),
    "blank lines without end": ("x.csv", lambda: forever(b"\n" * MIB), "empty"),
    "blank lines after a row": ("x.csv", lambda: forever(b"\n" * MIB, b"a,b\n1,2\n"), "blank_lines"),
    "blank lines after an object": ("x.jsonl", lambda: forever(b"\n" * MIB, b'{"a": 1}\n'), "blank_lines"),
    "half a zip archive": ("x.csv", lambda: [b"PK\x03\x04" + bytes(26)], "archive"),
    "half a gzip file": ("x.csv", lambda: [b"\x1f\x8b\x08" + NOISE], "archive"),
    "half a Parquet file": ("x.csv", lambda: [b"PAR1" + NOISE], "not_text"),
    "an old Excel file": ("x.csv", lambda: [b"\xd0\xcf\x11\xe0" + NOISE], "not_text"),
    "a PDF": ("x.csv", lambda: [b"%PDF-1.7\n" + NOISE], "not_text"),
    "a program": ("x.jsonl", lambda: [b"\x7fELF" + NOISE], "not_text"),
    "a database": ("x.csv", lambda: [b"SQLite format 3\x00" + NOISE], "not_text"),
    "a renamed pickle": ("x.csv", lambda: [pickle.dumps({"a": list(range(9))})], "not_text"),
    "noise": ("x.csv", lambda: [b"a" + NOISE], "encoding"),
    "half a UTF-32 unit": ("x.csv", lambda: ["a,b\n1,2\n".encode("utf-32") + b"\x31"], "encoding"),
    "Latin-1 far into the file": ("x.csv", lambda: [b"a,b\n" + b"1,2\n" * 100_000 + b"3,\xe9\n"], "encoding"),
    "a character cut in half": ("x.csv", lambda: [b"a,b\n1,\xe2\x82"], "encoding"),
    "half a UTF-16 unit": ("x.csv", lambda: ["a,b\n1,2\n".encode("utf-16") + b"\x31"], "encoding"),
    "a quote that never closes": ("x.csv", lambda: forever(b"x,y\n" * 50_000, b'a,b\n1,"'), "quote_open"),
    "one line without end": ("x.csv", lambda: forever(b"x" * MIB, b"a,b\n"), "row_too_long"),
    "a header without end": ("x.csv", lambda: forever(b"column," * 100_000), "row_too_long"),
    "200,000 columns": (
        "x.csv",
        lambda: [b",".join(b"%x" % n for n in range(170_000)) + b"\n"],
        "too_many_columns",
    ),
    "an object of 50,000 fields": (
        "x.jsonl",
        lambda: [json.dumps({f"k{n}": n for n in range(50_000)}).encode() + b"\n"],
        "too_many_columns",
    ),
    "one JSON string without end": ("x.jsonl", lambda: forever(b"x" * MIB, b'{"a": "'), "row_too_long"),
    "a JSON list": ("x.json", lambda: [b'[{"a": 1}, {"a": 2}]'], "json_list"),
    "rows without end": ("x.csv", lambda: forever(b"1,2\n" * 100_000, b"a,b\n"), "file_too_large"),
    "objects without end": ("x.jsonl", lambda: forever(b'{"a": "x"}\n' * 50_000), "file_too_large"),
    "columns of one name": ("x.csv", lambda: [b"a,b,a\n1,2,3\n"], "duplicate_column"),
    "nameless columns": ("x.csv", lambda: [b",,,\n1,2,3,4\n"], "column_name"),
    "NUL in the header": ("x.csv", lambda: [b"a\x00,b\n1,2\n"], "nul"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_hostile_files_are_refused_with_the_right_error(case: str) -> None:
    name, make, rule = REFUSED[case]
    with pytest.raises(FileRefused) as caught:
        parse(Stream(iter(make())), name)
    assert caught.value.error.rule == rule
    assert caught.value.error.fix


BAD_ROWS: dict[str, tuple[bytes, str]] = {
    "NaN": (b'{"a": NaN}', "number"),
    "1e999": (b'{"a": -1e999}', "number"),
    "a million digits": (b'{"a": ' + b"9" * 1_000_000 + b"}", "number"),
    "a long fraction": (b'{"a": 0.' + b"1" * 900_000 + b"}", "number"),
    "deep lists": (b'{"a": ' + b"[" * 500_000 + b"}", "too_deep"),
    "deep objects": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "too_deep"),
    "duplicate keys": (b'{"a": 1, "a": 2}', "duplicate_key"),
    "half a pair": (b'{"a": "\\udc00"}', "surrogate"),
    "an escaped NUL": (b'{"a": "\\u0000"}', "nul"),
    "half an object": (b'{"a": ', "json"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_hostile_rows_are_left_out_and_the_neighbours_kept(case: str) -> None:
    line, rule = BAD_ROWS[case]
    parsed = parse(io.BytesIO(b'{"a": 1}\n' + line + b'\n{"a": 2}\n'), "x.jsonl")
    assert parsed.summary is not None
    assert parsed.summary.rows == 2
    assert [(error.line, error.rule) for error in parsed.summary.errors] == [(2, rule)]


def test_too_many_rows_are_refused() -> None:
    with pytest.raises(FileRefused, match="1,000 rows"):
        parse(io.BytesIO(b"a,b\n" + b"1,2\n" * 2_000), budget=Budget(rows=1_000))


def test_memory_is_limited() -> None:
    wide = b'"' + b"x" * 900_000 + b'",2\n'
    with pytest.raises(FileRefused) as caught:
        parse(Stream(forever(wide, b"a,b\n")), limits=Limits(memory_bytes=24 * MIB), budget=Budget())
    assert caught.value.code == "too_much_memory"


def test_cpu_time_is_limited() -> None:
    endless = Budget(rows=1 << 40, decoded_bytes=1 << 50)
    with pytest.raises(FileRefused) as caught:
        parse(Stream(forever(b"1,2\n" * 100_000, b"a,b\n")), limits=Limits(cpu_seconds=1), budget=endless)
    assert caught.value.code == "too_slow"


def test_wall_time_is_limited() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", buffering=0) as source, pytest.raises(FileRefused) as caught:
        try:
            parse(source, limits=Limits(wall_seconds=1.0))
        finally:
            os.close(writing)
    assert caught.value.code == "too_slow"


def test_an_error_of_the_source_rises() -> None:
    class Broken(Exception):
        pass

    def chunks() -> Iterator[bytes]:
        yield b"a,b\n1,2\n"
        raise Broken

    with pytest.raises(Broken):
        parse(Stream(chunks()))


def test_a_reader_that_stops_early_leaves_no_child() -> None:
    parsed = parse_in_child(cast(BinaryIO, Stream(forever(b"1,2\n" * 10_000, b"a,b\n"))), Reading("x.csv"))
    next(parsed.batches)
    child = parsed._close.__self__._process  # type: ignore[attr-defined]
    parsed.close()
    assert child.returncode is not None


def test_the_child_has_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "canary-of-the-parent")
    parsed = parse_in_child(cast(BinaryIO, Stream(forever(b"1,2\n" * 10_000, b"a,b\n"))), Reading("x.csv"))
    child = parsed._close.__self__._process  # type: ignore[attr-defined]
    try:
        environment = Path(f"/proc/{child.pid}/environ").read_bytes()
        files = {os.readlink(path) for path in Path(f"/proc/{child.pid}/fd").iterdir()}  # noqa: PTH115
    finally:
        parsed.close()
    assert b"canary" not in environment
    assert len(files) == 3
    assert all(one.startswith("pipe:") or one == "/dev/null" for one in files)


ATTEMPTS = {
    "a socket": "socket.socket()",
    "a file to read": "open('/etc/passwd')",
    "a file to write": "import os; os.write(os.open('/tmp/x', os.O_CREAT | os.O_WRONLY), b'x')",
    "more memory": "mmap.mmap(-1, 600 << 20)",
}
SCRIPT = """
import sys, socket, os, mmap
sys.path.insert(0, {root!r})
from modeling.core.child_main import give_up_rights
if {limited}:
    give_up_rights({{"memory_bytes": 512 << 20, "cpu_seconds": 5}})
try:
    {attempt}
except (OSError, MemoryError) as error:
    os.write(1, b"refused")
else:
    os.write(1, b"done")
"""


@pytest.mark.parametrize("attempt", ATTEMPTS)
@pytest.mark.parametrize("limited", [True, False])
def test_rights_are_given_up(attempt: str, limited: bool) -> None:
    """The control without limits must be able to do what the child must not."""
    root = str(Path(__file__).resolve().parents[2])
    script = SCRIPT.format(root=root, limited=limited, attempt=ATTEMPTS[attempt])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=20)
    assert done.stdout == (b"refused" if limited else b"done"), done.stderr
