"""Histograms in plain Python: fixed bounds, a counter each; cheap enough for every batch and every request."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
TOKENS = (16, 64, 256, 1024, 2048, 4096, 8192, 16384, 32768)
BATCH_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Histogram:
    """How many observations lie at or below each bound, and above the last one; one writer, any reader."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        """`bounds`: upper ends in rising order, each belonging to its own bucket; raises ValueError."""
        self.bounds = tuple(bounds)
        if not self.bounds or any(a >= b for a, b in zip(self.bounds, self.bounds[1:], strict=False)):
            raise ValueError("bounds rise, and there is at least one")
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def body(self) -> dict[str, Any]:
        """What it holds as plain data: bounds (n), counts (n + 1, the last above all bounds), sum."""
        return {"bounds": list(self.bounds), "counts": list(self.counts), "sum": self.total}
