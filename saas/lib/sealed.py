"""Sealed streams: AES-256-GCM in 256 KiB chunks with a key commitment, random access and no Django.

Layout: header (magic, version, suite, log2 chunk, 32-byte salt, 7-byte nonce prefix), a 32-byte key commitment, then
chunks of ciphertext and tag. key | commitment = HKDF-SHA512(data key, salt, label | SHA-256(header | context)), so a
stream opens only under the data key and in the place it was made for. Chunk nonce = prefix | u32 counter | last flag
(the STREAM construction: Hoang, Reyhanitabar, Rogaway and Vizar, 2015): swapped, cut and extended streams are refused.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from saas.lib.positioned import Positioned

if TYPE_CHECKING:
    from typing_extensions import Buffer

MAGIC: Final = b"CLST"
FORMAT: Final = 1
SUITE_AES256_GCM_HKDF_SHA512: Final = 1
CHUNK_LOG2: Final = 18
CHUNK_BYTES: Final = 1 << CHUNK_LOG2
TAG_BYTES: Final = 16
COMMITMENT_BYTES: Final = 32
SALT_BYTES: Final = 32
PREFIX_BYTES: Final = 7
LABEL: Final = b"cloister/sealed/v1"
_HEADER: Final = struct.Struct(">4sBBB32s7s")
HEADER_BYTES: Final = _HEADER.size
PREAMBLE_BYTES: Final = HEADER_BYTES + COMMITMENT_BYTES
_BLOCK_BYTES: Final = 4 * CHUNK_BYTES  # one read of `seal`: small enough for the CPU's cache
_MAX_CHUNKS: Final = 1 << 32


class SealBroken(Exception):
    """The bytes are not what was sealed, or not for this key, tenant, object or version."""


@dataclass(frozen=True)
class Context:
    """Where a stream belongs; a stream moved elsewhere does not open."""

    tenant: str
    object: str
    version: int


@dataclass(frozen=True)
class Sealed:
    """What was written: plaintext size in bytes, and a digest that names the ciphertext.

    `digest` is SHA-256 over the preamble and every chunk's tag. It says nothing about the plaintext to someone without
    the key, unlike a plain hash of the content.
    """

    size_bytes: int
    digest: bytes


def fresh_header() -> bytes:
    """The header of a new stream: a salt and a nonce prefix that no other stream has."""
    salt, prefix = os.urandom(SALT_BYTES), os.urandom(PREFIX_BYTES)
    return _HEADER.pack(MAGIC, FORMAT, SUITE_AES256_GCM_HKDF_SHA512, CHUNK_LOG2, salt, prefix)


def _derive(key: bytes, header: bytes, context: Context) -> tuple[AESGCM, bytes]:
    """The chunk cipher and the 32-byte commitment for one header in one context."""
    if len(key) != 32:
        raise ValueError("A data key has 32 bytes.")
    bound = hashlib.sha256(header)
    for part in (context.tenant.encode(), context.object.encode(), str(context.version).encode()):
        bound.update(struct.pack(">I", len(part)) + part)
    salt = header[-PREFIX_BYTES - SALT_BYTES : -PREFIX_BYTES]
    info = LABEL + bound.digest()
    made = HKDF(algorithm=hashes.SHA512(), length=64, salt=salt, info=info).derive(key)
    return AESGCM(made[:32]), made[32:]


def _nonce(prefix: bytes, index: int, last: bool) -> bytes:
    return prefix + struct.pack(">IB", index, last)


def _write_all(sink: BinaryIO, data: memoryview) -> None:
    """Write everything, also to an unbuffered sink that takes less at a time."""
    while data:
        data = data[sink.write(data) :]


def _read_into(source: BinaryIO, target: memoryview) -> int:
    """Fill `target` as far as the source goes; returns the number of bytes read."""
    filled = 0
    readinto = getattr(source, "readinto", None)
    while filled < len(target):
        if readinto is not None:
            got = readinto(target[filled:])
        else:
            piece = source.read(len(target) - filled)
            got = len(piece)
            target[filled : filled + got] = piece
        if not got:
            break
        filled += got
    return filled


class SealWriter:
    """Seals what is written to it into `sink`. `close()` writes the last chunk; the sink stays open.

    A stream without `close()` has no last chunk and never opens, so an interrupted write cannot pass for a whole one.
    """

    def __init__(self, sink: BinaryIO, *, key: bytes, context: Context) -> None:
        self._sink = sink
        header = fresh_header()
        self._prefix = header[-PREFIX_BYTES:]
        self._cipher, commitment = _derive(key, header, context)
        self._pending = bytearray(CHUNK_BYTES)  # held back until it is known whether more follows
        self._held = 0
        self._out = bytearray(CHUNK_BYTES + TAG_BYTES)
        self._index = 0
        self._size = 0
        self._digest = hashlib.sha256(header + commitment)
        self._sealed: Sealed | None = None
        _write_all(sink, memoryview(header + commitment))

    def write(self, data: Buffer) -> int:
        """Take plaintext bytes; returns how many were taken (always all of them)."""
        if self._sealed is not None:
            raise ValueError("The sealed stream is closed.")
        rest = memoryview(data).cast("B")
        total = len(rest)
        if self._held and self._held + total > CHUNK_BYTES:
            room = CHUNK_BYTES - self._held
            self._hold(rest[:room])
            rest = rest[room:]
            self._put(memoryview(self._pending), last=False)
            self._held = 0
        while len(rest) > CHUNK_BYTES:
            self._put(rest[:CHUNK_BYTES], last=False)
            rest = rest[CHUNK_BYTES:]
        self._hold(rest)
        self._size += total
        return total

    def close(self) -> Sealed:
        """Write the last chunk and return what was sealed; a second call returns the same."""
        if self._sealed is None:
            self._put(memoryview(self._pending)[: self._held], last=True)
            self._sealed = Sealed(self._size, self._digest.digest())
        return self._sealed

    def _hold(self, data: memoryview) -> None:
        self._pending[self._held : self._held + len(data)] = data
        self._held += len(data)

    def _put(self, plain: memoryview, *, last: bool) -> None:
        if self._index >= _MAX_CHUNKS:
            raise ValueError("A sealed stream holds at most one pebibyte.")
        length = len(plain) + TAG_BYTES
        out = memoryview(self._out)[:length]
        self._cipher.encrypt_into(_nonce(self._prefix, self._index, last), plain, None, out)
        self._digest.update(out[-TAG_BYTES:])
        _write_all(self._sink, out)
        self._index += 1


class SealReader(Positioned):
    """A readable, seekable view of the plaintext of a sealed stream in a seekable `source`.

    The preamble and the last chunk are verified before the constructor returns, so `size` is authentic and a stream
    that was cut or extended never opens; every other chunk is verified before a byte of it is handed out.
    Raises SealBroken.
    """

    def __init__(self, source: BinaryIO, *, key: bytes, context: Context) -> None:
        super().__init__()
        self._source = source
        body = source.seek(0, os.SEEK_END) - PREAMBLE_BYTES
        source.seek(0)
        preamble = bytearray(PREAMBLE_BYTES)
        if body < TAG_BYTES or _read_into(source, memoryview(preamble)) != PREAMBLE_BYTES:
            raise SealBroken("The sealed stream is too short.")
        header = bytes(preamble[:HEADER_BYTES])
        magic, version, suite, chunk_log2, _, self._prefix = _HEADER.unpack(header)
        if (magic, version, suite, chunk_log2) != (MAGIC, FORMAT, SUITE_AES256_GCM_HKDF_SHA512, CHUNK_LOG2):
            raise SealBroken("The header is not that of a sealed stream of a known format.")
        self._cipher, commitment = _derive(key, header, context)
        if not hmac.compare_digest(commitment, preamble[HEADER_BYTES:]):
            raise SealBroken("The stream was sealed under another key or for another place.")
        self._chunks = -(-body // (CHUNK_BYTES + TAG_BYTES))
        if body - (self._chunks - 1) * (CHUNK_BYTES + TAG_BYTES) < TAG_BYTES:
            raise SealBroken("The sealed stream is too short.")
        self.size = body - self._chunks * TAG_BYTES
        self._sealed_chunk = bytearray(CHUNK_BYTES + TAG_BYTES)
        self._plain = bytearray(CHUNK_BYTES)
        self._loaded = -1
        self._load(self._chunks - 1)

    def readinto(self, buffer: Buffer) -> int:
        """Fill `buffer` as far as the plaintext goes; returns bytes written. Raises SealBroken."""
        target = memoryview(buffer).cast("B")
        filled = 0
        while filled < len(target) and self._position < self.size:
            index, start = divmod(self._position, CHUNK_BYTES)
            length = self._length(index)
            room = target[filled:]
            if start == 0 and len(room) >= length and index != self._loaded:
                self._decrypt(index, room[:length])
                taken = length
            else:
                self._load(index)
                taken = min(length - start, len(room))
                room[:taken] = memoryview(self._plain)[start : start + taken]
            filled += taken
            self._position += taken
        return filled

    def readall(self) -> bytes:
        """Everything from here to the end."""
        whole = bytearray(max(self.size - self._position, 0))
        self.readinto(whole)
        return bytes(whole)

    def copy_to(self, sink: BinaryIO) -> int:
        """Write the rest of the plaintext to `sink`, chunk by chunk; returns bytes written."""
        block = memoryview(bytearray(min(CHUNK_BYTES, max(self.size, 1))))
        total = 0
        while got := self.readinto(block):
            _write_all(sink, block[:got])
            total += got
        return total

    def close(self) -> None:
        """Close this view and its source."""
        if not self.closed:
            self._source.close()
        super().close()

    def _length(self, index: int) -> int:
        return min(CHUNK_BYTES, self.size - index * CHUNK_BYTES)

    def _load(self, index: int) -> None:
        if index != self._loaded:
            self._loaded = -1
            self._decrypt(index, memoryview(self._plain)[: self._length(index)])
            self._loaded = index

    def _decrypt(self, index: int, target: memoryview) -> None:
        sealed = memoryview(self._sealed_chunk)[: len(target) + TAG_BYTES]
        offset = PREAMBLE_BYTES + index * (CHUNK_BYTES + TAG_BYTES)
        if self._source.tell() != offset:
            self._source.seek(offset)
        if _read_into(self._source, sealed) != len(sealed):
            raise SealBroken("The sealed stream is too short.")
        nonce = _nonce(self._prefix, index, index == self._chunks - 1)
        try:
            self._cipher.decrypt_into(nonce, sealed, None, target)
        except InvalidTag:
            raise SealBroken("A chunk of the sealed stream does not verify.") from None


def seal(source: BinaryIO, sink: BinaryIO, *, key: bytes, context: Context) -> Sealed:
    """Seal everything `source` holds into `sink`; returns the plaintext size and the ciphertext's digest."""
    writer = SealWriter(sink, key=key, context=context)
    block = memoryview(bytearray(_BLOCK_BYTES))
    while got := _read_into(source, block):
        writer.write(block[:got])
    return writer.close()
