"""Copies among texts and rows: equal ones by digest, near-duplicates by MinHash and bands, within bounded work."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from modeling.core.quality_words import BANDS, HASHES, Ints, Sketches

ALIKE = 0.7  # Jaccard likeness of sets of three-word shingles from which two texts are near-duplicates
PAIRS_SHOWN = 100
MOST_PAIRS = (
    400_000  # candidates that are compared exactly; beyond, the rest is not looked at and the report says so
)
_NEIGHBOURS = 3  # of each text in a band's bucket: large buckets are chained, not paired all with all

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Near:
    """Pairs of near-duplicates among different texts: indices [m] of the first and the second, and how alike."""

    first: Ints
    second: Ints
    likeness: npt.NDArray[np.float64]
    is_complete: bool


def near_pairs(sketches: Sketches) -> Near:
    """All candidates of one band, compared; a text without words has no shingle and is left out."""
    pairs = _candidates(sketches)
    is_complete = len(pairs) <= MOST_PAIRS
    pairs = pairs[:MOST_PAIRS]
    first, second = (
        (pairs >> np.uint64(32)).astype(np.int64),
        (pairs & np.uint64(0xFFFFFFFF)).astype(np.int64),
    )
    # Four standard errors of the estimate below the threshold: the others are not worth an exact look.
    agreed = np.zeros(len(pairs))
    for start in range(0, len(pairs), 1 << 16):
        part = slice(start, start + (1 << 16))
        agreed[part] = (sketches.signatures[first[part]] == sketches.signatures[second[part]]).mean(axis=1)
    worth = agreed >= ALIKE - 4 * np.sqrt(ALIKE * (1 - ALIKE) / HASHES)
    first, second = first[worth], second[worth]
    likeness = np.array(
        [sketches.likeness(a, b) for a, b in zip(first.tolist(), second.tolist(), strict=True)]
    )
    alike = likeness >= ALIKE if len(likeness) else np.zeros(0, dtype=bool)
    return Near(first[alike], second[alike], likeness[alike], is_complete)


def _candidates(sketches: Sketches) -> npt.NDArray[np.uint64]:
    """Pairs (first << 32 | second) that share a band's bucket, sorted, each once."""
    filled = np.flatnonzero(np.diff(sketches.offsets))
    rows = HASHES // BANDS
    found = [np.zeros(0, dtype=np.uint64)]
    for band in range(BANDS):
        part = sketches.signatures[filled, band * rows : (band + 1) * rows].astype(np.uint64)
        key = np.zeros(len(filled), dtype=np.uint64)
        for at in range(rows):
            key = key * np.uint64(0x9E3779B97F4A7C15) + part[:, at]
            key ^= key >> np.uint64(29)
        order = np.argsort(key, kind="stable")
        ordered = key[order]
        for apart in range(1, _NEIGHBOURS + 1):
            same = np.flatnonzero(ordered[apart:] == ordered[:-apart])
            one, two = filled[order[same]], filled[order[same + apart]]
            low, high = np.minimum(one, two).astype(np.uint64), np.maximum(one, two).astype(np.uint64)
            found.append((low << np.uint64(32)) | high)
    return np.unique(np.concatenate(found))


@dataclass(frozen=True)
class Groups:
    """Rows by equal digests: the group of each row [n], and the first row of each group [g]."""

    of: Ints
    firsts: Ints
    sizes: Ints

    @property
    def repeated(self) -> int:
        """How many rows repeat an earlier one."""
        return int(len(self.of) - len(self.firsts))

    def pairs(self, lines: Ints) -> list[list[int]]:
        """The first pairs of lines that are equal."""
        again = np.flatnonzero(np.arange(len(self.of)) != self.firsts[self.of])[:PAIRS_SHOWN]
        return [[int(lines[self.firsts[self.of[row]]]), int(lines[row])] for row in again]


def grouped(digests: npt.NDArray[np.int64]) -> Groups:
    """Rows with the same digest; groups are numbered by their digest."""
    _, firsts, of, sizes = np.unique(digests, return_index=True, return_inverse=True, return_counts=True)
    return Groups(of.astype(np.int64), firsts.astype(np.int64), sizes.astype(np.int64))


def held_out_copies(groups: Groups, near: Near, held_out: Flags) -> tuple[int, int]:
    """How many held-out rows have an equal text among the training rows, and how many more only one much like theirs.

    `near` is about groups; `held_out` [n] says on which side each row is.
    """
    count = len(groups.firsts)
    in_training = np.zeros(count, dtype=bool)
    in_training[groups.of[~held_out]] = True
    is_near = np.zeros(count, dtype=bool)
    is_near[near.first[in_training[near.second]]] = True
    is_near[near.second[in_training[near.first]]] = True
    mine = groups.of[held_out]
    return int(in_training[mine].sum()), int((is_near[mine] & ~in_training[mine]).sum())
