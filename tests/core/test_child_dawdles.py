"""A child that was taken over and reads slowly what it asked for uses up its own time, not its parent's."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import Any

import pytest

from modeling.core.child import Limits, packages, parse_in_child
from modeling.core.tables import FileRefused, Reading

ROUNDS, PAUSE = 12, 0.2
DAWDLING = """
import os, struct, sys, time
sys.path.extend(sys.argv[1:])
import msgpack
def send(message):
    body = msgpack.packb(message)
    os.write(1, struct.pack(">I", len(body)) + body)
for _ in range({rounds}):
    send({{"kind": "range", "at": 0, "size": {size}}})
    time.sleep({pause})
    left = {size}
    while left:
        left -= len(os.read(0, left))
send({{"kind": "refused", "error": [0, 0, "had_all_the_time", ""]}})
"""


@pytest.mark.parametrize(("pause", "said"), [(PAUSE, "too_slow"), (0.0, "had_all_the_time")])
def test_waiting_for_a_child_counts_against_it(pause: float, said: str) -> None:
    size = 4 << 20  # more than a pipe holds
    script = DAWDLING.format(rounds=ROUNDS, size=size, pause=pause)

    def start(settings: dict[str, Any]) -> subprocess.Popen[bytes]:
        assert settings["size"] == size
        command = [sys.executable, "-I", "-S", "-c", script, *packages()]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    source = io.BytesIO(b"PAR1\0" + bytes(size - 5))
    limits = Limits(wall_seconds=ROUNDS * PAUSE / 2 if pause else 60.0)
    with pytest.raises(FileRefused) as caught:
        parse_in_child(source, Reading("x.parquet"), limits, start)
    assert caught.value.code == said
