"""Sealed streams: what was written comes back, and nothing else ever opens."""

from __future__ import annotations

import io
import os
import random

import pytest

from saas.lib.sealed import (
    CHUNK_BYTES,
    PREAMBLE_BYTES,
    TAG_BYTES,
    Context,
    SealBroken,
    SealReader,
    SealWriter,
    seal,
)

KEY = bytes(range(32))
CONTEXT = Context(tenant="acme", object="object-1", version=1)
STEP = CHUNK_BYTES + TAG_BYTES


def sealed_bytes(plain: bytes, *, key: bytes = KEY, context: Context = CONTEXT) -> bytes:
    sink = io.BytesIO()
    seal(io.BytesIO(plain), sink, key=key, context=context)
    return sink.getvalue()


def opened(data: bytes, *, key: bytes = KEY, context: Context = CONTEXT) -> bytes:
    return SealReader(io.BytesIO(data), key=key, context=context).read()


@pytest.mark.parametrize(
    "size",
    [
        0,
        1,
        100,
        CHUNK_BYTES - 1,
        CHUNK_BYTES,
        CHUNK_BYTES + 1,
        4 * CHUNK_BYTES,
        4 * CHUNK_BYTES + 7,
        9 * CHUNK_BYTES,
    ],
)
def test_it_works(size: int) -> None:
    plain = os.urandom(size)
    sink = io.BytesIO()
    result = seal(io.BytesIO(plain), sink, key=KEY, context=CONTEXT)
    assert result.size_bytes == size
    assert len(sink.getvalue()) == PREAMBLE_BYTES + size + TAG_BYTES * max(1, -(-size // CHUNK_BYTES))
    assert opened(sink.getvalue()) == plain
    copy = io.BytesIO()
    SealReader(sink, key=KEY, context=CONTEXT).copy_to(copy)
    assert copy.getvalue() == plain


def test_pieces_of_any_size_make_the_same_plaintext() -> None:
    draw = random.Random(7)
    plain = draw.randbytes(3 * CHUNK_BYTES + 12_345)
    sink = io.BytesIO()
    writer = SealWriter(sink, key=KEY, context=CONTEXT)
    at = 0
    while at < len(plain):
        size = draw.choice(
            [0, 1, 17, 4096, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES + 5]
        )
        at += writer.write(memoryview(plain)[at : at + size])
    assert writer.close().size_bytes == len(plain)
    assert opened(sink.getvalue()) == plain
    with pytest.raises(ValueError):
        writer.write(b"more")


def test_random_access_reads_the_right_bytes() -> None:
    draw = random.Random(3)
    plain = draw.randbytes(3 * CHUNK_BYTES + 99)
    reader = SealReader(io.BytesIO(sealed_bytes(plain)), key=KEY, context=CONTEXT)
    assert reader.size == len(plain)
    for _ in range(200):
        start, length = draw.randrange(len(plain) + 10), draw.choice([1, 50, 70_000, CHUNK_BYTES, 600_000])
        reader.seek(start)
        assert reader.read(length) == plain[start : start + length]
    assert reader.seek(-5, os.SEEK_END) == len(plain) - 5
    assert io.BufferedReader(reader).read() == plain[-5:]


def test_two_seals_of_the_same_bytes_share_nothing() -> None:
    first, second = sealed_bytes(b"same" * 100), sealed_bytes(b"same" * 100)
    assert first[7:] != second[7:]
    assert first[PREAMBLE_BYTES:] != second[PREAMBLE_BYTES:]


def test_every_bit_flip_is_caught() -> None:
    data = bytearray(sealed_bytes(b"a small record of one person" * 8))
    assert opened(bytes(data))  # control: the untouched object opens
    missed = []
    for bit in range(len(data) * 8):
        data[bit // 8] ^= 1 << bit % 8
        try:
            opened(bytes(data))
            missed.append(bit)
        except SealBroken:
            pass
        data[bit // 8] ^= 1 << bit % 8
    assert missed == []


def test_every_truncation_and_extension_is_caught() -> None:
    data = sealed_bytes(b"x" * 300)
    for length in range(len(data)):
        with pytest.raises(SealBroken):
            opened(data[:length])
    for extra in (1, TAG_BYTES, 300, STEP):
        with pytest.raises(SealBroken):
            opened(data + bytes(extra))


def test_a_cut_at_a_chunk_border_never_opens() -> None:
    data = sealed_bytes(os.urandom(3 * CHUNK_BYTES))
    for chunks in (0, 1, 2):
        with pytest.raises(SealBroken):
            SealReader(io.BytesIO(data[: PREAMBLE_BYTES + chunks * STEP]), key=KEY, context=CONTEXT)
    for cut in (1, TAG_BYTES, TAG_BYTES + 1, STEP - 1):
        with pytest.raises(SealBroken):
            opened(data[:-cut])


def test_a_stream_that_was_not_closed_never_opens() -> None:
    sink = io.BytesIO()
    SealWriter(sink, key=KEY, context=CONTEXT).write(os.urandom(2 * CHUNK_BYTES + 10))
    assert len(sink.getvalue()) == PREAMBLE_BYTES + 2 * STEP
    with pytest.raises(SealBroken):
        opened(sink.getvalue())


def test_splices_are_caught() -> None:
    data, other = sealed_bytes(os.urandom(4 * CHUNK_BYTES)), sealed_bytes(os.urandom(4 * CHUNK_BYTES))
    chunks = [data[PREAMBLE_BYTES + i * STEP :][:STEP] for i in range(4)]
    theirs = [other[PREAMBLE_BYTES + i * STEP :][:STEP] for i in range(4)]
    assert opened(
        data[:PREAMBLE_BYTES] + b"".join(chunks)
    )  # control: taking apart and joining changes nothing
    splices = [
        [*chunks[:1], chunks[2], chunks[1], chunks[3]],  # swapped
        [chunks[0], chunks[0], chunks[2], chunks[3]],  # repeated
        [chunks[0], chunks[2], chunks[3]],  # one left out
        [chunks[0], chunks[1], chunks[2], chunks[3], chunks[3]],  # the last one twice
        [theirs[0], *chunks[1:]],  # from another object under the same key
        [*chunks[:3], theirs[3]],
    ]
    for made in splices:
        with pytest.raises(SealBroken):
            opened(data[:PREAMBLE_BYTES] + b"".join(made))
    with pytest.raises(SealBroken):
        opened(other[:PREAMBLE_BYTES] + b"".join(chunks))


@pytest.mark.parametrize(
    "context",
    [
        Context("globex", "object-1", 1),
        Context("acme", "object-2", 1),
        Context("acme", "object-1", 2),
        Context("acmeobject-1", "", 1),  # lengths are bound too
        Context("acm", "eobject-1", 1),
    ],
)
def test_another_place_or_key_does_not_open(context: Context) -> None:
    data = sealed_bytes(b"secret")
    with pytest.raises(SealBroken):
        opened(data, context=context)
    with pytest.raises(SealBroken):
        opened(data, key=bytes(32))
    assert opened(data) == b"secret"
