"""Valid files of every format, and what chance makes of them: the same seed and number give the same bytes."""

from __future__ import annotations

import gzip
import io
import json
import random
import zipfile
from collections.abc import Callable
from functools import cache

import pyarrow as pa
import pyarrow.parquet as pq

from tests.core.csv_pieces import texts

INSERTED = (
    b'"',
    b"'",
    b"\0",
    b"\n",
    b"\r",
    b"\r\n",
    b",",
    b";",
    b"{",
    b"}",
    b"[",
    b"\\",
    b'""',
    b"\xff",
    b"\xef\xbb\xbf",
    b"\n\n",
)


@cache
def _csv(number: int) -> bytes:
    source = random.Random(number)
    lines = ["id,person,on,amount,ward,note"]
    for n in range(source.choice((3, 60, 300))):
        note = source.choice(
            ("stable", '"pain, left knee"', '"said ""no"""', "fièvre", "", '"plain"', "疼痛")
        )
        lines.append(f"{n},P{n % 17},2024-01-{n % 28 + 1:02d},{n / 7:.2f},{'ABC'[n % 3]},{note}")
    return (source.choice(("\n", "\r\n")).join(lines) + source.choice(("\n", ""))).encode()


@cache
def _json(number: int) -> bytes:
    source = random.Random(number)
    rows = [
        {
            "id": n,
            "text": source.choice(("é", 'a "q"', "x\ny", "")),
            "tags": ["a"] * (n % 3),
            "n": n / 3,
            "o": {"k": None},
        }
        for n in range(source.choice((2, 40, 150)))
    ]
    talks = [
        {"messages": [{"role": "user", "content": f"q {n}"}, {"role": "assistant", "content": "a"}]}
        for n in range(30)
    ]
    return "".join(
        json.dumps(row, ensure_ascii=bool(number % 2)) + "\n" for row in (talks if number % 3 == 0 else rows)
    ).encode()


@cache
def _parquet(number: int) -> bytes:
    rows = 40 + number
    table = pa.table(
        {
            "id": list(range(rows)),
            "text": [f"note {n}, é" for n in range(rows)],
            "value": [n / 3 for n in range(rows)],
            "tags": [["a"] * (n % 3) for n in range(rows)],
            "on": pa.array(range(rows), pa.timestamp("ms")),
        }
    )
    sink = io.BytesIO()
    pq.write_table(table, sink, compression=("none", "snappy", "gzip", "zstd")[number % 4], row_group_size=25)
    return sink.getvalue()


def _zipped(number: int) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED if number % 2 else zipfile.ZIP_STORED) as archive:
        archive.writestr("a.csv", _csv(number))
    return sink.getvalue()


FORMATS: dict[str, Callable[[int], bytes]] = {
    "a.csv": _csv,
    "b.csv": lambda number: next(texts(number, 1)).encode(),
    "c.csv": lambda number: (
        _csv(number).decode().encode(("utf-16", "cp1252", "utf-8-sig")[number % 3], "replace")
    ),
    "a.jsonl": _json,
    "a.parquet": _parquet,
    "a.csv.gz": lambda number: gzip.compress(_csv(number), mtime=0),
    "a.jsonl.gz": lambda number: gzip.compress(_json(number), mtime=0),
    "a.zip": _zipped,
}


def mutated(seed: int, number: int) -> tuple[str, bytes]:
    """(file name, bytes): one to eight mutations of a valid file, none in every twentieth."""
    source = random.Random(f"{seed}:{number}")
    name = list(FORMATS)[number % len(FORMATS)]
    content = FORMATS[name](source.randrange(12))
    for _ in range(0 if source.random() < 0.05 else source.choice((1, 1, 2, 3, 8))):
        content = source.choice(MUTATIONS)(content, source)
    return name, content


def _flip(content: bytes, source: random.Random) -> bytes:
    at = source.randrange(len(content) + 1)
    return (
        content[:at] + bytes([content[at] ^ (1 << source.randrange(8))]) + content[at + 1 :]
        if at < len(content)
        else content
    )


def _insert(content: bytes, source: random.Random) -> bytes:
    at = source.randrange(len(content) + 1)
    return content[:at] + source.choice(INSERTED) + content[at:]


def _cut(content: bytes, source: random.Random) -> bytes:
    start, stop = sorted(source.randrange(len(content) + 1) for _ in range(2))
    return content[:start] if source.random() < 0.5 else content[:start] + content[stop:]


def _repeat(content: bytes, source: random.Random) -> bytes:
    start = source.randrange(len(content) + 1)
    return (
        content[: start + 200]
        + content[start : start + 200] * source.randrange(1, 30)
        + content[start + 200 :]
    )


def _splice(content: bytes, source: random.Random) -> bytes:
    other = FORMATS[source.choice(list(FORMATS))](source.randrange(12))
    at, start = source.randrange(len(content) + 1), source.randrange(len(other) + 1)
    return content[:at] + other[start : start + source.choice((1, 20, 500))] + content[at:]


MUTATIONS = (_flip, _flip, _insert, _insert, _cut, _repeat, _splice)
