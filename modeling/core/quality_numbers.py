"""Numbers into what a small picture shows: spread, steps of a count, a histogram with round edges."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from modeling.core.types import Feature

BARS = 24
_STEPS: tuple[tuple[int, int | None], ...] = (
    (1, 1),
    (2, 2),
    (3, 3),
    (4, 5),
    (6, 10),
    (11, 20),
    (21, 50),
    (51, 100),
    (101, None),
)


def spread(values: npt.NDArray[np.int64]) -> dict[str, float]:
    """Mean, median, 95th percentile and the largest."""
    if not len(values):
        return {"mean": 0.0, "median": 0.0, "p95": 0.0, "largest": 0.0}
    median, p95 = np.percentile(values, [50, 95])
    return {
        "mean": float(values.mean()), "median": float(median), "p95": float(p95), "largest": float(values.max()),
    }  # fmt: skip


def steps(values: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
    """How many have 1, 2, 3, 4 to 5, 6 to 10, … (`high` None: and more), up to the last step that somebody reaches."""
    found = [
        {"low": low, "high": high, "count": int(((values >= low) & (values <= (high or math.inf))).sum())}
        for low, high in _STEPS
    ]
    while found and not found[-1]["count"]:
        found.pop()
    return found


def histogram(values: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
    """Bars of one round width up to the 99th percentile; the last holds all beyond (`high` None)."""
    if not len(values):
        return []
    top = float(np.percentile(values, 99))
    width = _round_width(max(1.0, top / BARS))
    bars = min(BARS, int(top // width) + 1)
    counts = np.bincount(np.minimum(values // width, bars), minlength=bars + 1)
    found: list[dict[str, Any]] = [
        {"low": at * width, "high": (at + 1) * width - 1, "count": int(counts[at])} for at in range(bars)
    ]
    if counts[bars]:
        found.append({"low": bars * width, "high": None, "count": int(counts[bars])})
    return found


def bars(values: npt.NDArray[np.float64], declared: Feature | None) -> dict[str, Any] | None:
    """Bars of numbers to predict, over their declared bounds where there are some; None without a number."""
    if not len(values):
        return None
    low, high = (declared.low, declared.high) if declared else (float(values.min()), float(values.max()))
    if not high > low:
        high = low + 1
    counts, edges = np.histogram(np.clip(values, low, high), bins=BARS, range=(low, high))
    return {
        "histogram": [
            {"low": float(edges[at]), "high": float(edges[at + 1]), "count": int(counts[at])}
            for at in range(BARS)
        ],
        "outside": int(((values < low) | (values > high)).sum()),
    }


def _round_width(least: float) -> int:
    """The smallest of 1, 2, 5, 10, 20, 25, 50, … that is not below `least`."""
    scale = 10 ** math.floor(math.log10(least))
    widths = (scale * step for step in (1, 2, 2.5, 5, 10))
    return int(next(width for width in widths if width >= least and width == int(width)))
