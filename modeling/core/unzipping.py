"""A zip archive of exactly one file, read from front to back: its contents and its list of contents must agree."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from modeling.core.file_errors import FileRefused, refuse

_LOCAL, _ENTRY, _END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_END64, _LOCATOR64 = b"PK\x06\x06", b"PK\x06\x07"
_LOCAL_HEAD, _ENTRY_HEAD = struct.Struct("<HHHHHLLLHH"), struct.Struct("<HHHHHHLLLHHHHHLL")
_END_HEAD, _END64_SIZE = struct.Struct("<HHHHLLH"), struct.Struct("<Q")
_ENCRYPTED, _DESCRIPTOR = 0x2041, 0x8
_STORED, _DEFLATED, _AES = 0, 8, 99
_UNKNOWN = 0xFFFFFFFF
_EXTRA_MOST = 1 << 16
_SIDE_MOST = 64
_SIDE_NAMES = (".DS_Store", "Thumbs.db", "desktop.ini")
_OFFICE = ("[Content_Types].xml", "_rels/", "xl/", "word/", "ppt/", "mimetype", "docProps/")


@dataclass(frozen=True)
class _Member:
    """One local header: sizes are what it claims, unknown when a data descriptor follows."""

    name: str
    flags: int
    method: int
    crc: int
    packed: int
    is_64: bool

    @property
    def is_side(self) -> bool:
        """Folders, and what macOS and Windows add by themselves."""
        last = self.name.rstrip("/").rpartition("/")[2]
        return self.name.endswith("/") or self.name.startswith("__MACOSX/") or last in _SIDE_NAMES


class _Pull:
    """Exact reads from a stream of chunks."""

    def __init__(self, chunks: Iterator[bytes], count: Callable[[bytes], None]) -> None:
        self._chunks = chunks
        self.count = count
        self._held = b""

    def read(self, size: int) -> bytes:
        """So many bytes; raises FileRefused when the archive ends before."""
        while len(self._held) < size:
            if not (chunk := next(self._chunks, b"")):
                raise _broken("cut short")
            self._held += chunk
        data, self._held = self._held[:size], self._held[size:]
        return data

    def some(self) -> bytes:
        """What is there, or the next chunk; empty at the end."""
        data, self._held = self._held or next(self._chunks, b""), b""
        return data

    def back(self, data: bytes) -> None:
        """Give back what was too much."""
        self._held = data + self._held


def unzip(
    chunks: Iterator[bytes], out_bytes: int, count: Callable[[bytes], None]
) -> tuple[str, Iterator[bytes]]:
    """(name, content in pieces of at most `out_bytes`) of the one file in an archive; raises FileRefused.

    `count` is told each piece that comes out, whatever it belongs to.
    """
    pull = _Pull(chunks, count)
    seen: list[str] = []
    while pull.read(4) == _LOCAL:
        member = _member(pull, seen)
        if not member.is_side:
            return member.name, _content(pull, member, seen, out_bytes)
        for _ in _unpacked(pull, member, out_bytes):
            pass
    raise refuse("empty", "There is no file in this archive. Put one CSV or JSONL file into it.")


def _content(pull: _Pull, member: _Member, seen: list[str], out_bytes: int) -> Iterator[bytes]:
    yield from _unpacked(pull, member, out_bytes)
    while (mark := pull.read(4)) == _LOCAL:
        other = _member(pull, seen)
        if not other.is_side:
            raise _several()
        yield from (b"" for _ in _unpacked(pull, other, out_bytes))
    _check_list(pull, mark, seen)


def _member(pull: _Pull, seen: list[str]) -> _Member:
    _, flags, method, _, _, crc, packed, size, name_size, extra_size = _LOCAL_HEAD.unpack(
        pull.read(_LOCAL_HEAD.size)
    )
    name = pull.read(name_size).decode("utf-8" if flags & 0x800 else "cp437", "replace")
    extra = pull.read(extra_size)
    seen.append(name)
    if len(seen) > _SIDE_MOST:
        raise _several()
    if flags & _ENCRYPTED or method == _AES:
        raise refuse(
            "archive_encrypted", "This archive is encrypted. Pack it without a password: it is sealed here."
        )
    if name.startswith(_OFFICE):
        raise refuse("not_text", "This is an Excel workbook or another Office file. Export the sheet as CSV.")
    if method not in (_STORED, _DEFLATED):
        raise refuse(
            "archive_method",
            "This archive is packed in a rare way. Pack it as an ordinary zip, or with gzip.",
        )
    wide = _wide(extra)
    if wide and packed == _UNKNOWN:
        packed = wide.get(8 if size == _UNKNOWN else 0, packed)
    return _Member(name, flags, method, crc, packed, bool(wide))


def _wide(extra: bytes) -> dict[int, int]:
    """The 64-bit sizes of a local header by their place in it; empty when it has none."""
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            body = extra[at + 4 : at + 4 + size]
            return {place: _END64_SIZE.unpack_from(body, place)[0] for place in range(0, len(body) - 7, 8)}
        at += 4 + size
    return {}


def _unpacked(pull: _Pull, member: _Member, out_bytes: int) -> Iterator[bytes]:
    """A member's content; its checksum and sizes are held against what its header or descriptor says."""
    has_descriptor = bool(member.flags & _DESCRIPTOR)
    if member.method == _STORED and has_descriptor and member.packed == 0 and not member.name.endswith("/"):
        fix = "This archive does not say how long its file is. Pack it again with compression, or use gzip."
        raise refuse("archive_method", fix)
    crc = 0
    pieces = (
        _stored(pull, member.packed, out_bytes) if member.method == _STORED else _inflated(pull, out_bytes)
    )
    for piece in pieces:
        pull.count(piece)
        crc = zlib.crc32(piece, crc)
        yield piece
    expected = _descriptor(pull, member) if has_descriptor and member.method == _DEFLATED else member.crc
    if crc != expected:
        raise _broken("damaged")


def _descriptor(pull: _Pull, member: _Member) -> int:
    crc = pull.read(4)
    if crc == b"PK\x07\x08":
        crc = pull.read(4)
    pull.read(16 if member.is_64 else 8)
    return int.from_bytes(crc, "little")


def _stored(pull: _Pull, left: int, out_bytes: int) -> Iterator[bytes]:
    while left:
        piece = pull.some()
        if not piece:
            raise _broken("cut short")
        pull.back(piece[min(left, out_bytes) :])
        piece = piece[: min(left, out_bytes)]
        left -= len(piece)
        yield piece


def _inflated(pull: _Pull, out_bytes: int) -> Iterator[bytes]:
    unpacker, held = zlib.decompressobj(wbits=-15), b""
    while not unpacker.eof:
        held = held or pull.some()
        if not held:
            raise _broken("cut short")
        try:
            piece = unpacker.decompress(held, out_bytes)
        except zlib.error:
            raise _broken("damaged") from None
        held = unpacker.unconsumed_tail
        if piece:
            yield piece
    pull.back(unpacker.unused_data)


def _check_list(pull: _Pull, mark: bytes, seen: list[str]) -> None:
    """The list of contents at the end names what was read, once each, and nothing follows it."""
    listed: list[str] = []
    while mark == _ENTRY:
        fields = _ENTRY_HEAD.unpack(pull.read(_ENTRY_HEAD.size))
        flags, name_size, extra_size, comment_size = fields[2], *fields[9:12]
        listed.append(pull.read(name_size).decode("utf-8" if flags & 0x800 else "cp437", "replace"))
        pull.read(extra_size + comment_size)
        if len(listed) > len(seen):
            raise _several()
        mark = pull.read(4)
    if mark == _END64:
        (size,) = _END64_SIZE.unpack(pull.read(8))
        pull.read(min(size, _EXTRA_MOST))
        mark = pull.read(4)
    if mark == _LOCATOR64:
        pull.read(16)
        mark = pull.read(4)
    if mark != _END or listed != seen:
        raise _broken("damaged")
    pull.read(_END_HEAD.unpack(pull.read(_END_HEAD.size))[6])
    if pull.some():
        raise _broken("damaged")


def _several() -> FileRefused:
    return refuse(
        "archive_members", "This archive holds several files. Pack one file, or upload them one by one."
    )


def _broken(how: str) -> FileRefused:
    return refuse("archive", f"This zip archive is {how}. Pack it again and upload it.")
