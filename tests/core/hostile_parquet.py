"""Hostile Parquet: halves, lies in the metadata, bombs, nested and impossible columns, cells that are none."""

from __future__ import annotations

import io
import struct
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.core.hostile_disguises import NOISE
from tests.core.hostile_files import CANARY, MIB, add, given

NAME = "x.parquet"


def written(table: pa.Table, **settings: Any) -> bytes:
    """A Parquet file with checksums in its pages."""
    sink = io.BytesIO()
    pq.write_table(table, sink, write_page_checksum=True, **settings)
    return sink.getvalue()


def honest(rows: int = 3_000) -> bytes:
    """A file that is as it should be."""
    texts = [f"{CANARY} {n * n}" for n in range(rows)]
    return written(pa.table({"n": list(range(rows)), "text": texts, "part": [n / 7 for n in range(rows)]}))


def fill() -> None:
    """Put all of them into the corpus."""
    _halves()
    _footers()
    _bombs()
    _columns()
    _cells()


def _halves() -> None:
    whole = honest()
    add("parquet: half a file", given(whole[: len(whole) // 2]), "parquet", name=NAME)
    for share in (1, 5, 25, 75, 90, 99):
        add(
            f"parquet: cut short at {share} %",
            given(whole[: len(whole) * share // 100]),
            "parquet",
            name=NAME,
        )
    for back in (1, 2, 4, 5, 8, 9, 64):
        add(f"parquet: the last {back} bytes are missing", given(whole[:-back]), "parquet", name=NAME)
    add(
        "parquet: the first 100 bytes of data are missing",
        given(whole[:4] + whole[104:]),
        "parquet",
        name=NAME,
    )
    add("parquet: only its magic", given(b"PAR1"), "parquet", name=NAME)
    add("parquet: its magic twice", given(b"PAR1PAR1"), "parquet", name=NAME)
    add("parquet: its magic thrice", given(b"PAR1PAR1PAR1"), "parquet", name=NAME)
    add("parquet: its magic and noise", given(b"PAR1\x15" + NOISE), "parquet", name=NAME)
    add("parquet: its magic around noise", given(b"PAR1\x15" + NOISE + b"PAR1"), "parquet", name=NAME)
    add("parquet: its magic around zeros", given(b"PAR1" + bytes(MIB) + b"PAR1"), "parquet", name=NAME)
    add("parquet: bytes after its end", given(whole + b"x"), "parquet", name=NAME)
    add("parquet: a page of zeros", given(whole[:200] + bytes(200) + whole[400:]), "parquet", name=NAME)
    for at in range(60, 60 + 12 * 97, 97):
        flipped = bytearray(whole)
        flipped[at] ^= 0x10
        add(f"parquet: a bit of a page flipped at {at}", given(bytes(flipped)), "parquet", name=NAME)
    add("parquet: said to be CSV", given(whole), "format", name="x.csv", declared={"format": "csv"})
    add("parquet: said to be JSON", given(whole), "format", name=NAME, declared={"format": "jsonl"})


def _with_footer(data: bytes, footer: bytes, said: int | None = None) -> bytes:
    size = len(footer) if said is None else said
    return data + footer + struct.pack("<I", size & 0xFFFFFFFF) + b"PAR1"


def _split(whole: bytes) -> tuple[bytes, bytes]:
    (size,) = struct.unpack("<I", whole[-8:-4])
    return whole[: -8 - size], whole[-8 - size : -8]


def _footers() -> None:
    data, footer = _split(honest())
    for said in (0, 1, 7, len(footer) - 1, len(footer) + 1, 1 << 20, 0x7FFFFFFF, 0xFFFFFFFF):
        add(
            f"parquet: a footer of {said} bytes, it says",
            given(_with_footer(data, footer, said)),
            "parquet",
            name=NAME,
        )
    for case, bad in (
        ("of zeros", bytes(len(footer))),
        ("of ones", b"\xff" * len(footer)),
        ("of noise", NOISE[:2_000]),
        ("of lists in lists", b"\x19" * 50_000),
        ("of a list of 2 billion", b"\x15\x02\x19\xfc\xff\xff\xff\xff\x07"),
        ("of a name of 2 billion characters", b"\x15\x02\x19\x1c\x48\xff\xff\xff\xff\x07"),
        ("cut in half", footer[: len(footer) // 2]),
    ):
        add(f"parquet: a footer {case}", given(_with_footer(data, bad)), "parquet", name=NAME)
    other = _split(honest(90_000))[1]
    add("parquet: another file's footer", given(_with_footer(data, other)), "parquet", name=NAME)
    add("parquet: row count that lies", given(_lying()), "parquet", name=NAME)
    add("parquet: one row group listed 20,000 times", _repeated, "file_too_large", name=NAME)


def _lying() -> bytes:
    """3,000 rows whose metadata says 8,000 everywhere: a varint of the same length."""
    data, footer = _split(honest(3_000))
    true, false = _varint(3_000), _varint(8_000)
    assert true in footer
    return _with_footer(data, footer.replace(b"\x16" + true, b"\x16" + false))


def _varint(number: int) -> bytes:
    """A zigzag varint of Thrift's compact protocol."""
    left, out = number << 1, bytearray()
    while left >= 0x80:
        out.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes([*out, left])


def _repeated() -> bytes:
    """Metadata that lists the same rows again and again."""
    whole = written(pa.table({"text": [f"{CANARY} {n * n}" * 20 for n in range(200)]}))
    data, _ = _split(whole)
    metadata = pq.ParquetFile(io.BytesIO(whole)).metadata
    for _ in range(10):
        metadata.append_row_groups(metadata)
    sink = io.BytesIO()
    metadata.write_metadata_file(sink)
    return _with_footer(data, _split(sink.getvalue())[1])


def _bombs() -> None:
    def one_text() -> bytes:
        texts = pa.array(["x" * 500_000]).dictionary_encode()
        return written(pa.table({"text": texts.take(pa.array([0] * 40_000))}), compression="zstd")

    def long_texts(length: int, rows: int) -> bytes:
        plain = {"use_dictionary": False, "compression": "zstd"}
        return written(pa.table({"text": ["x" * length] * rows}), **plain)

    def nothing(kind: pa.DataType) -> bytes:
        return written(pa.table({"a": pa.nulls(12_000_000, kind)}), compression="zstd")

    add("parquet: bomb of one text", one_text, "archive_bomb", name=NAME)
    add("parquet: bomb of nothing", lambda: nothing(pa.int32()), "archive_bomb", name=NAME)
    add("parquet: bomb of no texts", lambda: nothing(pa.string()), "archive_bomb", name=NAME)
    add("parquet: bomb of plain texts", lambda: long_texts(10_000, 20_000), "archive_bomb", name=NAME)
    add("parquet: bomb of one page", lambda: long_texts(300_000, 1_000), "too_much_memory", name=NAME)
    add("parquet: a text of 2 MB", lambda: long_texts(2_000_000, 3), "row_too_long", name=NAME)
    add("parquet: a text of 300 MB", lambda: long_texts(300_000_000, 1), "too_much_memory", name=NAME)
    ones = pa.array([True]).take(pa.array([0] * 12_000_000))
    add("parquet: bomb of yes", lambda: written(pa.table({"a": ones})), "archive_bomb", name=NAME)
    zero_list = {"a": [[0] * 2_000_000]}
    add("parquet: a list of 2 million", lambda: written(pa.table(zero_list)), "row_too_long", name=NAME)
    empty_lists = pa.table({"a": pa.array([[]], pa.list_(pa.int8())).take(pa.array([0] * 6_000_000))})
    add("parquet: bomb of empty lists", lambda: written(empty_lists), "archive_bomb", name=NAME)


def _columns() -> None:
    nested: dict[str, Any] = {
        "structs": [{"a": CANARY}],
        "lists of lists": [[["a"]]],
        "lists of structs": [[{"a": 1}]],
        "durations": pa.array([1], pa.duration("s")),
        "maps": pa.array([[(CANARY, 1)]], pa.map_(pa.string(), pa.int32())),
    }
    for case, column in nested.items():
        content = written(pa.table({"a": [1], "b": column}))
        add(f"parquet: a column of {case}", given(content), "nested", name=NAME)
    wide = pa.table({f"c{n}": [n] for n in range(1_500)})
    add("parquet: 1,500 columns", given(written(wide)), "too_many_columns", name=NAME)
    for case, names, rule in (
        ("twice the same name", [CANARY, CANARY], "duplicate_column"),
        ("no name", ["a", ""], "column_name"),
        ("a name of blanks", ["a", "  "], "column_name"),
        ("a name of 201 characters", ["a", "x" * 201], "column_name"),
        ("a NUL in a name", ["a", "b\0" + CANARY], "nul"),
    ):
        table = pa.table([pa.array([1]), pa.array([2])], names=names)
        add(f"parquet: columns: {case}", given(written(table)), rule, name=NAME)
    nobody = pa.table({"a": [1]}).select([])
    add("parquet: no columns", given(written(nobody)), "column_name", name=NAME)


def _cells() -> None:
    raw = pa.array([b"ok", b"\xff" + CANARY.encode(), b"ok"])
    talk = [{"role": "user", "content": CANARY}]
    cells: dict[str, tuple[Any, str]] = {
        "NUL": (["ok", f"{CANARY}\0", "ok"], "nul"),
        "NUL in a list": ([["ok"], [f"{CANARY}\0"], ["ok"]], "nul"),
        "infinity": ([1.0, float("inf"), 2.0], "number"),
        "less than infinity": ([1.0, float("-inf"), 2.0], "number"),
        "infinity in a list": ([[1.0], [float("inf")], [2.0]], "number"),
        "a text that is no UTF-8": (raw.view(pa.string()), "encoding"),
        "bytes": (raw, "encoding"),
        "a day in the year 50,000": (pa.array([0, 17_500_000, 1], pa.int32()).view(pa.date32()), "date"),
        "a day before all days": (pa.array([0, -(1 << 31), 1], pa.int32()).view(pa.date32()), "date"),
        "the end of time": (pa.array([0, (1 << 63) - 1, 1], pa.int64()).view(pa.timestamp("us")), "date"),
        "the beginning of time": (pa.array([0, -(1 << 62), 1], pa.int64()).view(pa.timestamp("ms")), "date"),
        "the 25th hour": (pa.array([0, 90_000, 1], pa.int32()).view(pa.time32("s")), "date"),
    }
    for case, (column, rule) in cells.items():
        add(f"parquet: a cell of {case}", given(written(pa.table({"a": column}))), rule, row=True, name=NAME)
    good = [*talk, {"role": "assistant", "content": "a"}]
    chats = {
        "the user has the last word": (talk, "messages_end"),
        "no turns": ([], "messages"),
        "nothing": (None, "messages"),
    }
    for case, (messages, rule) in chats.items():
        content = written(pa.table({"messages": [good, messages, good]}))
        add(f"parquet: chat: {case}", given(content), rule, row=True, name=NAME)
