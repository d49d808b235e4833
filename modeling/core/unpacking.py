"""What lies in an upload: plain text, or gzip or a zip of exactly one file, unpacked while it streams.

A packed file's claims are worth nothing: what counts is what comes out, in bytes and against what went in. Names in an
archive are looked at for their ending only.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from modeling.core.child_ranges import is_parquet
from modeling.core.file_errors import Budget, refuse
from modeling.core.unzipping import unzip

OUT_BYTES = 1 << 18
RATIO = 250  # one byte packed holds so many at most, once enough has come out to tell
RATIO_FROM_BYTES = 4 << 20
_SNIFF_BYTES = 512
_PIECE_BYTES = 1 << 14
_TAR_AT = 257
_GZIP, _ZIP, _EMPTY_ZIP = b"\x1f\x8b", b"PK\x03\x04", b"PK\x05\x06"
_NOT_TEXT: tuple[tuple[bytes, str], ...] = (
    (b"PK\x07\x08", "This is one part of a zip archive. Upload the CSV or JSONL inside."),
    (b"PARE", "This is an encrypted Parquet file. Write it without encryption: it is sealed here."),
    (b"ARROW1", "This is an Arrow file. Write it as Parquet, CSV or JSONL."),
    (b"ORC", "This is an ORC file. Write it as Parquet, CSV or JSONL."),
    (b"Obj\x01", "This is an Avro file. Write it as Parquet, CSV or JSONL."),
    (b"\xd0\xcf\x11\xe0", "This is an old Office file. Export the sheet as CSV."),
    (b"%PDF", "This is a PDF document. Upload the records as CSV or JSONL."),
    (b"BZh", "This file is compressed with bzip2. Unpack it, or use gzip."),
    (b"\xfd7zXZ", "This file is compressed with xz. Unpack it, or use gzip."),
    (b"\x28\xb5\x2f\xfd", "This file is compressed with Zstandard. Unpack it, or use gzip."),
    (b"\x04\x22\x4d\x18", "This file is compressed with LZ4. Unpack it, or use gzip."),
    (b"7z\xbc\xaf\x27\x1c", "This is a 7z archive. Upload the CSV or JSONL inside."),
    (b"Rar!\x1a\x07", "This is a RAR archive. Upload the CSV or JSONL inside."),
    (b"\x89PNG", "This is an image. Upload the records as CSV or JSONL."),
    (b"\xff\xd8\xff", "This is an image. Upload the records as CSV or JSONL."),
    (b"GIF8", "This is an image. Upload the records as CSV or JSONL."),
    (b"\x7fELF", "This is a program. Upload the records as CSV or JSONL."),
    (b"MZ\x90\x00", "This is a program. Upload the records as CSV or JSONL."),
    (b"\xca\xfe\xba\xbe", "This is a program. Upload the records as CSV or JSONL."),
    (b"\x00asm", "This is a program. Upload the records as CSV or JSONL."),
    (b"SQLite format 3", "This is a database file. Export the table as CSV."),
    (b"\x89HDF\r\n", "This is an HDF5 file. Export the table as CSV or Parquet."),
    (b"\x93NUMPY", "This is a NumPy file. Export the table as CSV or Parquet."),
    (b"RDX", "This is an R data file. Export the table as CSV."),
    (b"<!DOCTYPE", "This is a web page or XML. Export the table as CSV."),
    (b"<?xml", "This is a web page or XML. Export the table as CSV."),
    (b"<html", "This is a web page or XML. Export the table as CSV."),
    (b"{\\rtf", "This is a text document. Export the table as CSV."),
)


@dataclass(frozen=True)
class Source:
    """Bytes to read as text, under the name of what was packed, and how it was packed: "" | gzip | zip."""

    chunks: Iterator[bytes]
    name: str
    packed: str = ""


def unpack(chunks: Iterable[bytes], name: str, budget: Budget) -> Source:
    """Open what was uploaded. Raises FileRefused now, or while its chunks are drawn, when it cannot be unpacked."""
    head, whole = _peek(iter(chunks))
    if head.startswith(_EMPTY_ZIP):
        raise refuse("empty", "The archive is empty. Put one CSV or JSONL file into it.")
    if not head.startswith((_GZIP, _ZIP)):
        _require_text(head)
        return Source(whole, name)
    tally = _Tally(budget)
    packed = "gzip" if head.startswith(_GZIP) else "zip"
    inner = name.rpartition(".")[0] if name.lower().endswith((".gz", ".gzip", ".zip")) else name
    if packed == "gzip":
        unpacked = _gunzip(tally.taken(_small(whole)), tally)
    else:
        member, unpacked = unzip(tally.taken(_small(whole)), OUT_BYTES, tally.count)
        inner = member.replace("\\", "/").rpartition("/")[2] or inner
    head, unpacked = _peek(unpacked)
    if is_parquet(head):
        raise refuse("archive_nested", "Upload the Parquet file itself: it is compressed already.")
    if head.startswith((_GZIP, _ZIP, _EMPTY_ZIP)) or _is_tar(head):
        raise refuse("archive_nested", "This is an archive in an archive. Upload the one file inside.")
    _require_text(head)
    return Source(unpacked, inner, packed)


def _peek(chunks: Iterator[bytes]) -> tuple[bytes, Iterator[bytes]]:
    held = b""
    for chunk in chunks:
        held += chunk
        if len(held) >= _SNIFF_BYTES:
            break
    return held[:_SNIFF_BYTES], chain((held,), chunks)


def _is_tar(head: bytes) -> bool:
    return head[_TAR_AT : _TAR_AT + 5] == b"ustar"


def _require_text(head: bytes) -> None:
    """Refuse, with what to do, the formats that are known by their first bytes."""
    if is_parquet(head):
        raise refuse("not_text", "This is a Parquet file that cannot be sought in. Upload it by itself.")
    for magic, fix in _NOT_TEXT:
        if head.startswith(magic):
            raise refuse("not_text", fix)
    if _is_tar(head):
        raise refuse(
            "not_text", "This is a tar archive. Upload the CSV or JSONL inside, packed with gzip or zip."
        )
    is_pickle = head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    if is_pickle or head.startswith((b"(dp0", b"(lp0", b"cos\nsystem", b"c__builtin__\n")):
        fix = "This is a Python pickle, never opened here. Export the rows as CSV or JSONL."
        raise refuse("not_text", fix)


class _Tally:
    """Bytes that went in and came out: a bomb is known by its ratio, a giant by the budget."""

    def __init__(self, budget: Budget) -> None:
        self._most = budget.decoded_bytes
        self._in = 0
        self._out = 0

    def taken(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Pass packed chunks on, counted."""
        for chunk in chunks:
            self._in += len(chunk)
            yield chunk

    def count(self, chunk: bytes) -> None:
        """Note what came out; raises FileRefused when it is too much."""
        self._out += len(chunk)
        if self._out > self._most:
            raise refuse("file_too_large", f"Split the file: one may hold {self._most:,} bytes of text.")
        if self._out > RATIO_FROM_BYTES and self._out > RATIO * self._in:
            fix = f"This archive unpacks to more than {RATIO} times its size. Upload the file inside."
            raise refuse("archive_bomb", fix)


def _gunzip(chunks: Iterator[bytes], tally: _Tally) -> Iterator[bytes]:
    """The members of a gzip file one after another; zeros may fill up its end."""
    unpacker = zlib.decompressobj(wbits=31)
    try:
        for chunk in chunks:
            held = chunk
            while held:
                if unpacker.eof:
                    held = held.lstrip(b"\0")
                    unpacker = zlib.decompressobj(wbits=31) if held else unpacker
                    continue
                out = unpacker.decompress(held, OUT_BYTES)
                held = unpacker.unused_data or unpacker.unconsumed_tail
                tally.count(out)
                yield out
        while not unpacker.eof and (out := unpacker.decompress(unpacker.unconsumed_tail, OUT_BYTES)):
            tally.count(out)
            yield out
    except zlib.error:
        raise refuse("archive", "This gzip file is damaged. Pack it again and upload it.") from None
    if not unpacker.eof:
        raise refuse("archive", "This gzip file is cut short. Upload it again, whole.")


def _small(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Pieces of at most 16 KiB: so much is held against what comes out of it, and copied after each tiny member."""
    for chunk in chunks:
        for at in range(0, len(chunk), _PIECE_BYTES):
            yield chunk[at : at + _PIECE_BYTES]
