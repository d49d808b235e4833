"""Frames per person: what is sealed opens, a flipped bit does not, and shredding one unit leaves its neighbours."""

from __future__ import annotations

import base64
import io
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

from modeling.core.segments import (
    FRAME_ROWS_BYTES,
    MAGIC,
    FrameReader,
    FrameWriter,
    KeyRing,
    Place,
    SegmentBroken,
    pack_row,
    pack_texts,
    read_frames,
    unpack_rows,
)
from modeling.core.tables import Row
from tests.core.csv_pieces import read

PLACE = Place("tenant-1", "dataset-1", 1)
HANDLES = [bytes([n]) * 16 for n in range(1, 6)]


def sealed(place: Place = PLACE) -> tuple[bytes, dict[bytes, bytes]]:
    """Five units of three rows each, and their keys."""
    sink = io.BytesIO()
    writer = FrameWriter(sink, place)
    keys = {handle: os.urandom(32) for handle in HANDLES}
    for at, handle in enumerate(HANDLES):
        writer.write(
            handle, keys[handle], [pack_row(at * 3 + n, [f"value {n}", None, ["x"]], None) for n in range(3)]
        )
    writer.flush()
    return sink.getvalue(), keys


def opened(content: bytes, keys: dict[bytes, bytes], place: Place = PLACE) -> list[Any]:
    """(handle, line, values) of all rows whose key is there."""
    reader = FrameReader(place)
    return [
        (frame.handle, row.line, row.values)
        for frame in read_frames(io.BytesIO(content))
        if frame.handle in keys
        for row in reader.open(frame, keys[frame.handle])
    ]


def test_it_works() -> None:
    content, keys = sealed()
    rows = opened(content, keys)
    assert [line for _, line, _ in rows] == list(range(15))
    assert [handle for handle, _, _ in rows] == [handle for handle in HANDLES for _ in range(3)]
    assert rows[4][2] == ["value 1", None, ["x"]]


def test_every_flipped_bit_is_refused() -> None:
    content, keys = sealed()
    assert opened(content, keys)
    whole = {handle: keys[handle] for handle in HANDLES}
    for position in range(len(content)):
        broken = bytearray(content)
        broken[position] ^= 1 << (position % 8)
        with pytest.raises((SegmentBroken, KeyError)):
            reader = FrameReader(PLACE)
            for frame in read_frames(io.BytesIO(bytes(broken))):
                list(reader.open(frame, whole[frame.handle]))


@pytest.mark.parametrize(
    "place",
    [Place("tenant-2", "dataset-1", 1), Place("tenant-1", "dataset-2", 1), Place("tenant-1", "dataset-1", 2)],
)
def test_frames_do_not_open_elsewhere(place: Place) -> None:
    content, keys = sealed()
    with pytest.raises(SegmentBroken):
        opened(content, keys, place)


def test_frames_cannot_be_swapped_or_dropped() -> None:
    content, keys = sealed()
    head, size = 6, (len(content) - 6) // 5
    frames = [content[head + n * size : head + (n + 1) * size] for n in range(5)]
    for order in ([1, 0, 2, 3, 4], [1, 2, 3, 4], [0, 0, 1, 2, 3]):
        with pytest.raises(SegmentBroken):
            opened(content[:head] + b"".join(frames[n] for n in order), keys)


@pytest.mark.parametrize("cut", [1, 5, 20, 40, 100])
def test_a_torn_frame_is_refused(cut: int) -> None:
    content, keys = sealed()
    with pytest.raises(SegmentBroken):
        opened(content[:-cut], keys)


def test_shredding_one_unit_leaves_the_neighbours() -> None:
    content, keys = sealed()
    before = opened(content, keys)
    del keys[HANDLES[2]]
    assert opened(content, keys) == [row for row in before if row[0] != HANDLES[2]]
    keys[HANDLES[2]] = os.urandom(32)
    with pytest.raises(SegmentBroken):
        opened(content, keys)


def test_unit_keys_open_only_in_their_place() -> None:
    dataset_key = os.urandom(32)
    ring = KeyRing(dataset_key, "dataset-1")
    key, wrapped = ring.make(HANDLES[0])
    assert ring.open(HANDLES[0], wrapped) == key
    broken = wrapped[:-1] + bytes([wrapped[-1] ^ 1])
    for other, handle, taken in (
        (ring, HANDLES[1], wrapped),
        (ring, HANDLES[0], broken),
        (ring, HANDLES[0], b""),
        (KeyRing(dataset_key, "dataset-2"), HANDLES[0], wrapped),
        (KeyRing(os.urandom(32), "dataset-1"), HANDLES[0], wrapped),
    ):
        with pytest.raises(SegmentBroken):
            other.open(handle, taken)


def test_keys_and_nonces_never_repeat() -> None:
    ring = KeyRing(os.urandom(32), "d")
    made = [ring.make(HANDLES[0]) for _ in range(20_000)]
    assert len({key for key, _ in made}) == len({wrapped[:12] for _, wrapped in made}) == len(made)
    sink = io.BytesIO()
    writer = FrameWriter(sink, PLACE)
    for _ in range(20_000):
        writer.write(HANDLES[0], bytes(32), [b"\x93\x01\x90\xc0"])
    writer.flush()
    assert len({frame.nonce for frame in read_frames(io.BytesIO(sink.getvalue()))}) == 20_000


def test_a_large_unit_goes_into_several_frames() -> None:
    sink = io.BytesIO()
    writer = FrameWriter(sink, PLACE)
    rows = [pack_row(n, [random.Random(n).randbytes(50_000).hex()], None) for n in range(40)]
    writer.write(HANDLES[0], bytes(32), rows)
    writer.flush()
    frames = list(read_frames(io.BytesIO(sink.getvalue())))
    assert len(frames) == 4
    assert all(len(frame.sealed) <= FRAME_ROWS_BYTES + 16 for frame in frames)
    assert [line for _, line, _ in opened(sink.getvalue(), {HANDLES[0]: bytes(32)})] == list(range(40))


def test_sealing_costs_microseconds_a_row() -> None:
    ring, sink = KeyRing(os.urandom(32), "d"), io.BytesIO()
    writer = FrameWriter(sink, PLACE)
    row = [pack_row(1, ["a description of about sixty characters, as in the clinic file"], None)]
    start = time.process_time()
    for n in range(20_000):
        handle = n.to_bytes(16, "big")
        writer.write(handle, ring.make(handle)[0], row)
    writer.flush()
    assert (time.process_time() - start) / 20_000 < 40e-6  # 6 µs alone; generous for a busy machine


def test_segments_of_the_first_format_are_read() -> None:
    """The fixture was written before rows of CSV were kept as text; its marker is the one of version 1."""
    content = base64.b64decode((Path(__file__).parent / "segments_v1.b64").read_text())
    assert content[:6] == b"CLSEG\x01" != MAGIC
    keys = {bytes([n]) * 16: bytes([n + 10]) * 32 for n in (1, 2)}
    reader = FrameReader(PLACE)
    rows = [
        row for frame in read_frames(io.BytesIO(content)) for row in reader.open(frame, keys[frame.handle])
    ]
    assert rows == [
        Row(line, values, raw)
        for n in (1, 2)
        for line, values, raw in (
            (n * 2, ['a, "b"', None, ["x", 1.5]], None),
            (n * 2 + 1, ["é", {"k": True}, ""], '"é",,\r\n'),
        )
    ]


@pytest.mark.parametrize(("quote", "newline"), [('"', "\n"), ('"', "\r\n"), ("'", "\n"), ("none", "\n")])
def test_rows_kept_as_text_come_back_the_same(quote: str, newline: str) -> None:
    mark = quote if quote != "none" else '"'
    lines = ["a,b", "1,é", f"{mark}x, y{mark},2", f"{mark}plain{mark},", f"{mark}{mark * 2}{mark},3"]
    if quote == "none":
        lines = ["a,b", '1,"x', "a\tb,c"]
    content = "".join(line + newline for line in lines).encode()
    settings = {"quote": quote, "is_fast": True}
    seen = read(content, **settings)
    packed = [row for block in seen.blocks for row in pack_texts(block, block.lines())]
    assert len(packed) == seen.in_blocks == len(lines) - 1
    assert [row for one in packed for row in unpack_rows(one)] == read(
        content, quote=quote, is_fast=False
    ).rows
