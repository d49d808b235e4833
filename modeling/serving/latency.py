"""The bounds of all latency histograms, and quantiles estimated from their counts. Plain Python."""

from __future__ import annotations

from collections.abc import Sequence

# Seconds. A value belongs to the first bound that it does not exceed; one more counter is for the rest.
BOUNDS = (
    0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75,
    1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0,
)  # fmt: skip


def added(counts: Sequence[Sequence[int]]) -> list[int]:
    """Several histograms as one, [len(BOUNDS) + 1]; an empty one counts as nothing."""
    total = [0] * (len(BOUNDS) + 1)
    for one in counts:
        for index, count in enumerate(one):
            total[index] += count
    return total


def quantile(counts: Sequence[int], share: float) -> float | None:
    """Seconds below which `share` (0 to 1) of the values lie, linear within a bucket; the last bound for what is above.

    None where nothing was counted. The truth lies in the same bucket: `bucket` says which.
    """
    rank = share * sum(counts)
    if not rank:
        return None
    index, before = _bucket(counts, rank)
    if index == len(BOUNDS):
        return BOUNDS[-1]
    low = BOUNDS[index - 1] if index else 0.0
    return low + (BOUNDS[index] - low) * (rank - before) / counts[index]


def bucket(counts: Sequence[int], share: float) -> tuple[float, float | None] | None:
    """The bucket (low, high) in seconds that holds the quantile; high is None above all bounds."""
    rank = share * sum(counts)
    if not rank:
        return None
    index, _ = _bucket(counts, rank)
    return (BOUNDS[index - 1] if index else 0.0, BOUNDS[index] if index < len(BOUNDS) else None)


def _bucket(counts: Sequence[int], rank: float) -> tuple[int, int]:
    """Where the value of that rank lies, and how many lie in the buckets before."""
    before = 0
    for index, count in enumerate(counts):
        if count and before + count >= rank:
            return index, before
        before += count
    raise ValueError("the rank is above the count")
