"""Proofs on sealed objects: every flip, cut and splice is refused, two keys never open one stream, no salt repeats.

`make seals` counts in full; the default run takes a few of each. Nothing that a reader hands out before it refuses may
differ from what was sealed.
"""

from __future__ import annotations

import io
import itertools
import os
import random
import time
from collections.abc import Iterable, Iterator, Sequence

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from saas.lib import sealed
from saas.lib.sealed import (
    CHUNK_BYTES,
    HEADER_BYTES,
    PREAMBLE_BYTES,
    PREFIX_BYTES,
    SALT_BYTES,
    TAG_BYTES,
    Context,
    SealBroken,
    SealReader,
    fresh_header,
    seal,
)
from tests.proofs.record import Proof
from tests.tenants.collisions import ciphertext_for

IS_FULL = os.environ.get("SEALS", "") == "full"
FLIPS = 100_000 if IS_FULL else 60  # sampled in an object of three chunks
SALTS = 1_000_000 if IS_FULL else 20_000
PIECES = 5 if IS_FULL else 2  # chunks in a row that are tried in every order
KEY = bytes(range(32))
CONTEXT = Context("acme", "object-1", 1)
STEP = CHUNK_BYTES + TAG_BYTES


def sealed_bytes(plain: bytes, context: Context = CONTEXT, key: bytes = KEY) -> bytes:
    sink = io.BytesIO()
    seal(io.BytesIO(plain), sink, key=key, context=context)
    return sink.getvalue()


def accepts(data: bytes | bytearray, plain: bytes, context: Context = CONTEXT, key: bytes = KEY) -> bool:
    """Whether a reader takes it to the end; what it hands out on the way must be what was sealed."""
    given = bytearray()
    try:
        with SealReader(io.BytesIO(data), key=key, context=context) as reader:
            block = bytearray(CHUNK_BYTES)
            while got := reader.readinto(block):
                given += block[:got]
    except SealBroken:
        assert plain.startswith(given)
        return False
    return True


class Bare:
    """The control: each chunk is AES-GCM under a nonce of its own, with no number and no last flag."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def chunks(self, plain: bytes) -> list[bytes]:
        made = []
        for at in range(0, len(plain), CHUNK_BYTES):
            nonce = os.urandom(12)
            made.append(nonce + self._cipher.encrypt(nonce, plain[at : at + CHUNK_BYTES], None))
        return made

    def accepts(self, chunks: Iterable[bytes]) -> bool:
        try:
            for chunk in chunks:
                self._cipher.decrypt(chunk[:12], chunk[12:], None)
        except InvalidTag:
            return False
        return True


def boundaries(size: int) -> Iterator[int]:
    """Offsets beside every border of the layout."""
    borders = [0, 4, 7, 39, HEADER_BYTES, PREAMBLE_BYTES, size]
    for at in range(PREAMBLE_BYTES, size, STEP):
        borders += [at, at + STEP - TAG_BYTES, at + STEP]
    borders.append(size - TAG_BYTES)
    near = {border + beside for border in borders for beside in range(-2, 3)}
    yield from sorted(offset for offset in near if 0 <= offset < size)


def test_every_bit_flip_is_refused(proof: Proof) -> None:
    begun, tried = time.monotonic(), 0
    small, large = os.urandom(100), os.urandom(2 * CHUNK_BYTES + 77)
    chance = random.Random(os.urandom(8))
    for plain, is_small in ((b"", True), (small, True), (large, False)):
        data = bytearray(sealed_bytes(plain))
        assert accepts(data, plain)  # control: the untouched object opens
        edges = [
            offset * 8 + bit for offset in boundaries(len(data)) for bit in (range(8) if IS_FULL else (3,))
        ]
        sampled = [chance.randrange(len(data) * 8) for _ in range(FLIPS)]
        for flipped in range(len(data) * 8) if is_small else [*edges, *sampled]:
            data[flipped // 8] ^= 1 << flipped % 8
            assert not accepts(data, plain), f"bit {flipped} was not noticed"
            data[flipped // 8] ^= 1 << flipped % 8
            tried += 1
        assert accepts(data, plain)
    words = f"{tried:,} flips (every bit of two small objects, borders and samples of one of 3 chunks): 0 accepted"
    proof.found("bit flips of sealed objects", words, seconds=time.monotonic() - begun)


def test_every_cut_and_extension_is_refused(proof: Proof) -> None:
    begun, tried = time.monotonic(), 0
    small, large = os.urandom(100), os.urandom(3 * CHUNK_BYTES)
    chance = random.Random(os.urandom(8))
    for plain in (b"", small, large):
        data = sealed_bytes(plain)
        sampled = [chance.randrange(len(data)) for _ in range(FLIPS)]
        for length in [*boundaries(len(data)), *sampled] if plain is large else range(len(data)):
            assert not accepts(data[:length], plain), f"cut to {length} bytes was not noticed"
            tried += 1
        for more in (1, TAG_BYTES - 1, TAG_BYTES, TAG_BYTES + 1, STEP, 2 * STEP):
            assert not accepts(data + bytes(more), plain)
            tried += 1
    bare = Bare(KEY)
    chunks = bare.chunks(large)
    missed = sum(bare.accepts(chunks[:count]) for count in range(len(chunks)))
    assert missed == 3  # control: without a last flag every cut at a chunk's end passes for the whole
    proof.found(
        "cuts and extensions of sealed objects",
        f"{tried:,} cuts and extensions: 0 accepted; chunks without a last flag take {missed} of 3 cuts at their ends",
        seconds=time.monotonic() - begun,
    )


def arrangements(chunks: Sequence[bytes], most: int) -> Iterator[tuple[bytes, ...]]:
    for count in range(most + 1):
        yield from itertools.product(chunks, repeat=count)


def test_every_splice_is_refused(proof: Proof) -> None:
    """Chunks of an object, of another under the same key, of another tenant's and of another version, in any order."""
    begun, tried, own = time.monotonic(), 0, 0
    plain = os.urandom(2 * CHUNK_BYTES + 1_000)
    places = [CONTEXT, CONTEXT, Context("globex", "object-1", 1), Context("acme", "object-1", 2)]
    objects = [sealed_bytes(plain, place) for place in places]
    pieces = [[data[at : at + STEP] for at in range(PREAMBLE_BYTES, len(data), STEP)] for data in objects]
    pool = [*pieces[0], *(pieces[1] if IS_FULL else pieces[1][:1]), pieces[2][0], pieces[3][2]]
    for arranged in [*arrangements(pool, PIECES), tuple(pieces[0]), *itertools.permutations(pieces[0])]:
        for data, chunks in zip(objects[:2], pieces[:2], strict=True):
            is_original = arranged == tuple(chunks)
            own += is_original
            assert accepts(data[:PREAMBLE_BYTES] + b"".join(arranged), plain) == is_original
            tried += 1
    assert own  # control: taken apart and put together as it was, it opens
    for (place, data), other in itertools.product(zip(places, objects, strict=True), places):
        if place != other:
            assert not accepts(data, plain, other)
            tried += 1
    bare = Bare(KEY)
    loose = [*bare.chunks(plain), *bare.chunks(plain)[:1]]
    taken = sum(map(bare.accepts, arrangements(loose, 2)))
    assert taken == sum(1 for _ in arrangements(loose, 2))  # control: without numbers every arrangement opens
    proof.found(
        "splices of sealed objects",
        f"{tried - own:,} arrangements of chunks (left out, repeated, swapped, of other objects, tenants, versions): "
        f"0 accepted; chunks without numbers open in {taken} of {taken} arrangements",
        seconds=time.monotonic() - begun,
    )


def chunk_keys(
    keys: Sequence[bytes], header: bytes, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[bytes], bytes]:
    """What each data key becomes under this header, and the commitment of the first."""
    made: list[bytes] = []
    monkeypatch.setattr(sealed, "AESGCM", lambda key: made.append(key) or AESGCM(key))  # type: ignore[func-returns-value]
    commitments = [sealed._derive(key, header, CONTEXT)[1] for key in keys]
    monkeypatch.undo()
    return made, commitments[0]


@pytest.mark.parametrize("count", [2, 5])
def test_a_stream_that_several_keys_could_open_is_refused(
    count: int, monkeypatch: pytest.MonkeyPatch, proof: Proof
) -> None:
    begun = time.monotonic()
    keys, header = [os.urandom(32) for _ in range(count)], fresh_header()
    under, commitment = chunk_keys(keys, header, monkeypatch)
    nonce = header[-PREFIX_BYTES:] + bytes(4) + b"\1"
    forged = ciphertext_for(under, nonce)
    plains = [AESGCM(key).decrypt(nonce, forged, None) for key in under]
    assert len(set(plains)) == count  # control: bare AES-GCM takes the one ciphertext under every key
    with pytest.raises(InvalidTag):
        AESGCM(under[0]).decrypt(nonce, forged[:-1] + bytes([forged[-1] ^ 1]), None)
    data = header + commitment + forged
    taken = [accepts(data, plain, key=key) for key, plain in zip(keys, plains, strict=True)]
    assert taken == [True, *[False] * (count - 1)]
    proof.found(
        f"one ciphertext for {count} keys",
        f"bare AES-GCM opens it under {count} of {count} keys, to other bytes each; the stream with its key commitment "
        "opens under the one key that made it",
        seconds=time.monotonic() - begun,
    )


def repeats(drawn: Iterable[bytes]) -> int:
    found = list(drawn)
    return len(found) - len(set(found))


def test_no_salt_and_no_prefix_repeats(proof: Proof) -> None:
    begun = time.monotonic()
    headers = [fresh_header() for _ in range(SALTS)]
    salts = repeats(header[-PREFIX_BYTES - SALT_BYTES : -PREFIX_BYTES] for header in headers)
    prefixes = repeats(header[-PREFIX_BYTES:] for header in headers)
    short = repeats(os.urandom(3) for _ in range(SALTS))
    assert (salts, prefixes) == (0, 0)
    assert short > 0  # control: a generator of 24 bits repeats
    proof.found(
        "salts and nonce prefixes",
        f"{SALTS:,} headers of the writer's own generator: 0 salts, 0 prefixes repeat; 24 bits repeat {short:,} times",
        seconds=time.monotonic() - begun,
    )
