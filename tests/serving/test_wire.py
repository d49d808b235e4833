"""Frames survive any cut of the stream, and bytes that are no frames end the connection."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modeling.serving.wire import (
    MAX_FRAME_BYTES,
    Decoder,
    Frame,
    Kind,
    WireBroken,
    check_hello,
    encode,
    hello,
)

bodies = st.dictionaries(
    st.text(max_size=8),
    st.one_of(
        st.text(max_size=50),
        st.binary(max_size=50),
        st.integers(-(2**63), 2**64 - 1),
        st.lists(st.floats(allow_nan=False)),
    ),
    max_size=5,
)
frames = st.builds(Frame, st.sampled_from(Kind), st.integers(0, 2**63 - 1), bodies)


def test_it_works() -> None:
    [frame] = Decoder().feed(
        encode(Frame(Kind.ASK, 7, {"op": "classify", "inputs": ["a", "b"], "key": b"\x00"}))
    )
    assert frame == Frame(Kind.ASK, 7, {"op": "classify", "inputs": ["a", "b"], "key": b"\x00"})


@given(st.lists(frames, max_size=5), st.integers(1, 40))
def test_any_cut_gives_the_same_frames(sent: list[Frame], step: int) -> None:
    data = b"".join(map(encode, sent))
    decoder = Decoder()
    got = [frame for at in range(0, len(data), step) for frame in decoder.feed(data[at : at + step])]
    assert got == sent


@given(st.binary(min_size=8, max_size=200))
def test_garbage_is_refused_or_waits_for_more(data: bytes) -> None:
    try:
        for frame in Decoder().feed(data):
            assert isinstance(frame, Frame)
    except WireBroken:
        pass


@pytest.mark.parametrize(
    "message",
    [
        None,
        7,
        [],
        [1, 1],
        [1, 1, {}, {}],
        [99, 1, {}],
        [True, 1, {}],
        ["1", 1, {}],
        [1, -1, {}],
        [1, 1.0, {}],
        [1, 1, []],
        [1, 1, {1: 2}],
    ],
)
def test_wrong_shapes_are_refused(message: object) -> None:
    payload = msgpack.packb(message)
    with pytest.raises(WireBroken):
        Decoder().feed(len(payload).to_bytes(4, "big") + payload)


def test_a_frame_over_the_bound_is_refused_before_it_is_read() -> None:
    with pytest.raises(WireBroken, match="bound"):
        Decoder().feed((MAX_FRAME_BYTES + 1).to_bytes(4, "big"))
    with pytest.raises(WireBroken, match="bound"):
        Decoder().feed(bytes(4))
    with pytest.raises(WireBroken, match="bound"):
        encode(Frame(Kind.ASK, 1, {"text": "x" * MAX_FRAME_BYTES}))


def test_the_greeting_carries_the_version() -> None:
    [frame] = Decoder().feed(hello())
    check_hello(frame)
    with pytest.raises(WireBroken, match="version"):
        check_hello(Frame(Kind.HELLO, 0, {"version": 999}))
    with pytest.raises(WireBroken, match="HELLO"):
        check_hello(Frame(Kind.ASK, 1, {}))
