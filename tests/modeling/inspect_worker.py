"""An inspection to be killed or stopped: `tenant file moment count`; prints `here`, then waits, or `end` when done."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import django

django.setup()

from modeling.actions import inspection, segmenting  # noqa: E402
from modeling.actions.inspection_lease import InspectionLease  # noqa: E402


def stay() -> None:
    """Say where it stands; wait for a kill, or go on once standard input has a line."""
    os.write(1, b"here\n")
    sys.stdin.readline()


def main(tenant: str, file: str, moment: str, count: int) -> None:
    """Inspect one file and stand still at the moment."""
    watched, frame = InspectionLease.watched, segmenting.FrameWriter.write
    insert = inspection.insert_unit_keys
    written = 0

    def slow_watched(self: InspectionLease, pieces: Any) -> Iterator[Any]:
        for at, piece in enumerate(watched(self, pieces)):
            if moment == "reading" and at == count:
                stay()
            yield piece

    def slow_frame(*args: Any) -> None:
        nonlocal written
        frame(*args)
        written += 1
        if moment == "sealing" and written == count:
            stay()

    def slow_insert(*args: Any) -> None:
        insert(*args)
        if moment == "inserting":
            stay()

    InspectionLease.watched = slow_watched  # type: ignore[method-assign]
    segmenting.FrameWriter.write = slow_frame  # type: ignore[method-assign]
    inspection.insert_unit_keys = slow_insert
    started = time.monotonic()
    inspection.inspect_file(tenant, file)
    os.write(1, f"end {time.monotonic() - started:.1f}\n".encode())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
