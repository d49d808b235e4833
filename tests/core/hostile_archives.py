"""Hostile gzip and zip: bombs, damage, lies about what is inside, and more than one thing inside."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator

from tests.core.hostile_disguises import MAGIC, NOISE
from tests.core.hostile_files import CANARY, MIB, add, given

ROWS = b"a,b\n" + b"".join(b"%d,%s %d\n" % (n, CANARY.encode(), n * n) for n in range(4_000))


def fill() -> None:
    """Put all of them into the corpus."""
    _gzips()
    _zips()
    _zip_lies()
    _nested()


def deflated(parts: Iterator[bytes], wbits: int) -> Iterator[bytes]:
    """Parts compressed while they are made."""
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    for part in parts:
        if out := packer.compress(part):
            yield out
    yield packer.flush()


def _bomb(chunk: bytes, times: int, first: bytes = b"a,b\n") -> Callable[[], Iterator[bytes]]:
    def parts() -> Iterator[bytes]:
        yield first
        for _ in range(times):
            yield chunk

    return lambda: deflated(parts(), 31)


def _gzips() -> None:
    whole, name = gzip.compress(ROWS), "x.csv.gz"
    for share in (1, 5, 10, 25, 50, 75, 90, 99):
        cut = whole[: max(3, len(whole) * share // 100)]
        add(f"gzip: cut short at {share} %", given(cut), "archive", name=name)
    for back in (1, 4, 5, 8):
        add(f"gzip: the last {back} bytes are missing", given(whole[:-back]), "archive", name=name)
    flipped = {"checksum": -6, "size": -2, "method": 2, "reserved flags": 3, "a block": len(whole) // 2}
    for case, at in flipped.items():
        broken = bytearray(whole)
        broken[at] ^= 0xFF
        add(f"gzip: {case} is wrong", given(bytes(broken)), "archive", name=name)
    add("gzip: text after its end", given(whole + ROWS), "archive", name=name)
    add("gzip: noise after its end", given(whole + NOISE), "archive", name=name)
    add("gzip: half a member after its end", given(whole + whole[:99]), "archive", name=name)
    add("gzip: a name without end", given(b"\x1f\x8b\x08\x08" + bytes(6) + b"n" * MIB), "archive", name=name)
    add("gzip: of nothing", given(gzip.compress(b"")), "empty", name=name)
    add("gzip: 100,000 members of nothing", given(gzip.compress(b"") * 100_000), "empty", name=name)
    add("gzip: bomb of rows", _bomb((b"1" * 200 + b",2\n") * 5_000, 60), "archive_bomb", name=name)
    add("gzip: bomb of one row", _bomb(b"1" * MIB, 200), "row_too_long", name=name)
    add("gzip: bomb of a quote", _bomb(b"1\n" * 500_000, 200, b'a,b\n1,"'), "quote_open", name=name)
    add("gzip: bomb of blank lines", _bomb(b"\n" * MIB, 200, b"a,b\n1,2\n"), "blank_lines", name=name)
    add("gzip: bomb of zeros", _bomb(bytes(MIB), 200, b""), "empty", name=name)
    add("gzip: bomb of objects", _bomb(b'{"a": 1}\n' * 100_000, 200, b""), "archive_bomb", name="x.jsonl.gz")
    slow = b"".join(b"%d,%d\n" % (n, n * n) for n in range(200_000))
    add("gzip: honest rows without end", _bomb(slow, 200), "file_too_large", name=name)
    add("gzip: bad rows", given(gzip.compress(ROWS + CANARY.encode() + b"\n")), "ragged", row=True, name=name)


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED, comment: bytes = b"") -> bytes:
    """A zip archive."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        archive.comment = comment
    return sink.getvalue()


def _zips() -> None:
    whole, name = zipped({"x.csv": ROWS}), "x.zip"
    for share in (1, 10, 25, 50, 75, 90, 99):
        cut = whole[: max(5, len(whole) * share // 100)]
        add(f"zip: cut short at {share} %", given(cut), "archive", name=name)
    add("zip: without its list", given(whole[: whole.rindex(b"PK\x01\x02")]), "archive", name=name)
    add("zip: without its end", given(whole[: whole.rindex(b"PK\x05\x06")]), "archive", name=name)
    add("zip: bytes after its end", given(whole + b"x"), "archive", name=name)
    add("zip: a second archive after its end", given(whole + whole), "archive", name=name)
    add("zip: two files", given(zipped({"x.csv": ROWS, "y.csv": ROWS})), "archive_members", name=name)
    add(
        "zip: a script beside",
        given(zipped({"x.csv": ROWS, "run.sh": b"rm -rf /"})),
        "archive_members",
        name=name,
    )
    add(
        "zip: 1,000 files",
        given(zipped({f"{n}.csv": ROWS[:99] for n in range(1_000)})),
        "archive_members",
        name=name,
    )
    folders = {f"d{n}/": b"" for n in range(100)}
    add("zip: 100 folders", given(zipped(folders)), "archive_members", name=name)
    add("zip: nothing", given(zipped({})), "empty", name=name)
    add("zip: a folder", given(zipped({"d/": b""})), "empty", name=name)
    add("zip: of an empty file", given(zipped({"x.csv": b""})), "empty", name=name)
    for what, method in (("bzip2", zipfile.ZIP_BZIP2), ("lzma", zipfile.ZIP_LZMA)):
        add(f"zip: packed by {what}", given(zipped({"x.csv": ROWS}, method)), "archive_method", name=name)
    for slip in ("../../etc/passwd", "/etc/passwd", "C:\\x.csv", "..\\x.csv", "x" * 60_000, "a\nb.csv"):
        content = zipped({slip: ROWS + CANARY.encode() + b"\n"})
        add(f"zip: named {slip[:24]!a}", given(content), "ragged", row=True, name=name)
    for office in ("[Content_Types].xml", "xl/workbook.xml", "word/document.xml", "mimetype"):
        add(f"zip: begins with {office}", given(zipped({office: ROWS, "b": ROWS})), "not_text", name="x.xlsx")
    bomb = b"a,b\n" + b"1,2\n" * 3_000_000
    add("zip: bomb of rows", lambda: zipped({"x.csv": bomb}), "archive_bomb", name=name)
    add(
        "zip: bomb in a folder for macOS",
        lambda: zipped({"__MACOSX/x": bomb, "x.csv": ROWS}),
        "archive_bomb",
        name=name,
    )
    commented = zipped({"x.csv": ROWS + CANARY.encode() + b"\n"}, comment=b"c" * 65_535)
    add("zip: a long comment", given(commented), "ragged", row=True, name=name)
    add("zip: a part of several", given(b"PK\x07\x08" + whole), "not_text", name=name)


def _patched(content: bytes, places: dict[int, tuple[str, int]]) -> bytes:
    """The archive with numbers written over; negative places count from its list of contents."""
    data, listed = bytearray(content), content.rindex(b"PK\x01\x02")
    for at, (form, value) in places.items():
        struct.pack_into(form, data, at if at >= 0 else listed - at, value)
    return bytes(data)


def _zip_lies() -> None:
    name, whole = "x.zip", zipped({"x.csv": ROWS})
    stored = zipped({"x.csv": ROWS}, zipfile.ZIP_STORED)
    size, named = len(ROWS), whole.replace(b"x.csv", b"y.csv", 1)
    for case, content, rule in (
        ("encrypted", _patched(whole, {6: ("<H", 1)}), "archive_encrypted"),
        ("strongly encrypted", _patched(whole, {6: ("<H", 0x41)}), "archive_encrypted"),
        ("its list encrypted", _patched(whole, {6: ("<H", 0x2000)}), "archive_encrypted"),
        ("AES", _patched(whole, {8: ("<H", 99)}), "archive_encrypted"),
        ("Deflate64", _patched(whole, {8: ("<H", 9)}), "archive_method"),
        ("Zstandard", _patched(whole, {8: ("<H", 93)}), "archive_method"),
        ("imploded", _patched(whole, {8: ("<H", 6)}), "archive_method"),
        ("deflated, said to be stored", _patched(whole, {8: ("<H", 0)}), "archive"),
        ("stored, said to be deflated", _patched(stored, {8: ("<H", 8)}), "archive"),
        ("wrong checksum", _patched(whole, {14: ("<L", 1)}), "archive"),
        ("longer than it is", _patched(stored, {18: ("<L", size + 99)}), "encoding"),
        ("shorter than it is", _patched(stored, {18: ("<L", size - 99)}), "archive"),
        ("4 GB long", _patched(stored, {18: ("<L", 0xFFFFFFFE)}), "encoding"),
        ("a name of 64 KB that is not there", _patched(whole, {26: ("<H", 65_535)}), "archive"),
        ("an extra of 64 KB that is not there", _patched(whole, {28: ("<H", 65_535)}), "archive"),
        (
            "says its length afterwards but is stored",
            _patched(stored, {6: ("<H", 8), 18: ("<L", 0)}),
            "archive_method",
        ),
        ("the list names another file", named, "archive"),
        ("the list's name is too long", _patched(whole, {-28: ("<H", 9_999)}), "archive"),
        ("the list's comment is too long", _patched(whole, {-32: ("<H", 9_999)}), "archive"),
        ("a damaged block", whole[:200] + bytes(64) + whole[264:], "archive"),
    ):
        add(f"zip: {case}", given(content), rule, name=name)
    twice = whole[: whole.rindex(b"PK\x05\x06")]
    entry = twice[twice.rindex(b"PK\x01\x02") :]
    listed_twice = twice + entry + whole[whole.rindex(b"PK\x05\x06") :]
    add("zip: listed twice", given(listed_twice), "archive_members", name=name)


def _nested() -> None:
    plain = gzip.compress(ROWS)
    for case, content, name in (
        ("gzip: nested gzip", gzip.compress(plain), "x.csv.gz.gz"),
        ("gzip: nested zip", gzip.compress(zipped({"x.csv": ROWS})), "x.zip.gz"),
        ("zip: nested gzip", zipped({"x.csv.gz": plain}), "x.zip"),
        ("zip: nested zip", zipped({"x.zip": zipped({"x.csv": ROWS})}), "x.zip"),
        ("gzip: nested 200 deep", _deep(200), "x.gz"),
        ("gzip: Parquet inside", gzip.compress(b"PAR1\x15\x04" + NOISE), "x.parquet.gz"),
        ("zip: Parquet inside", zipped({"x.parquet": b"PAR1\x15\x04" + NOISE}), "x.zip"),
    ):
        add(case, given(content), "archive_nested", name=name)
    for what in ("PNG", "PDF", "SQLite", "NumPy", "ELF"):
        add(f"gzip: {what} inside", given(gzip.compress(MAGIC[what])), "not_text", name="x.csv.gz")
        add(f"zip: {what} inside", given(zipped({"x.csv": MAGIC[what]})), "not_text", name="x.zip")


def _deep(levels: int) -> bytes:
    content = ROWS
    for _ in range(levels):
        content = gzip.compress(content, 1)
    return content
