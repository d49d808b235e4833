"""Words of a text and the sketches by which near-duplicates are found: shingles of three words, MinHash, bottom-k."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

HASHES = 80
BANDS = 20  # of four hashes each: texts alike to .7 meet in some band with 99.6 %, to .4 with 40 %
KEPT = 128  # the smallest shingles of a text: up to 130 words they are all of them, and likeness is exact
SHINGLE = 3
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+")

U64 = npt.NDArray[np.uint64]
U32 = npt.NDArray[np.uint32]
Ints = npt.NDArray[np.int64]

_MIX = np.uint64(0x9E3779B97F4A7C15)


def _scrambled(values: U64) -> U64:
    values = (values ^ (values >> np.uint64(31))) * _MIX
    return values ^ (values >> np.uint64(29))


def _numbers(count: int, start: int) -> U64:
    """Fixed 64-bit numbers: which functions are used is no secret, since a text cannot aim at hash()."""
    places = np.arange(start, start + count, dtype=np.uint64)
    return _scrambled(_scrambled((places + np.uint64(1)) * _MIX))


_FACTORS = _numbers(HASHES, 0) | np.uint64(1)
_SHIFTS = _numbers(HASHES, HASHES)
_PLACES = _numbers(SHINGLE, 2 * HASHES) | np.uint64(1)


def words_of(text: str) -> list[str]:
    """Lower-case words and numbers; each Chinese or Japanese character counts as a word."""
    return _WORD.findall(text.lower())


@dataclass(frozen=True)
class Sketches:
    """Of each text: MinHash signature [n, HASHES], and its smallest shingle hashes, flat with offsets [n + 1]."""

    signatures: U32
    shingles: U32
    offsets: Ints

    @staticmethod
    def joined(parts: Sequence[Sketches]) -> Sketches:
        """One after the other."""
        if not parts:
            return Sketches(
                np.zeros((0, HASHES), np.uint32), np.zeros(0, np.uint32), np.zeros(1, dtype=np.int64)
            )
        sizes = np.concatenate([np.diff(part.offsets) for part in parts])
        return Sketches(
            np.concatenate([part.signatures for part in parts]),
            np.concatenate([part.shingles for part in parts]),
            np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes)]),
        )

    def likeness(self, first: int, second: int) -> float:
        """The Jaccard likeness of two texts' sets of shingles: exact below KEPT shingles, estimated above."""
        ours = self.shingles[self.offsets[first] : self.offsets[first + 1]]
        theirs = self.shingles[self.offsets[second] : self.offsets[second + 1]]
        if len(ours) < KEPT and len(theirs) < KEPT:
            shared = len(np.intersect1d(ours, theirs, assume_unique=True))
            return shared / max(1, len(ours) + len(theirs) - shared)
        smallest = np.union1d(ours, theirs)[:KEPT]
        inside = np.isin(smallest, ours, assume_unique=True) & np.isin(smallest, theirs, assume_unique=True)
        return float(inside.mean())


def sketch(texts: Sequence[Sequence[str]]) -> Sketches:
    """Sketches of texts given as words; a text without words has an empty set and is like nothing."""
    counts = np.array([len(words) for words in texts], dtype=np.int64)
    flat = np.fromiter((hash(word) for words in texts for word in words), np.int64, int(counts.sum()))
    owner, hashes = _shingles(flat.view(np.uint64), counts)
    order = np.lexsort((hashes, owner))
    owner, hashes = owner[order], hashes[order]
    is_new = np.ones(len(owner), dtype=bool)
    is_new[1:] = (owner[1:] != owner[:-1]) | (hashes[1:] != hashes[:-1])
    owner, hashes = owner[is_new], hashes[is_new]
    sizes = np.bincount(owner, minlength=len(texts))
    starts = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes)])
    rank = np.arange(len(owner)) - starts[owner]
    kept = rank < KEPT
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(np.minimum(sizes, KEPT))])
    return Sketches(_signatures(hashes, starts, sizes), hashes[kept], offsets)


def _shingles(words: U64, counts: Ints) -> tuple[Ints, U32]:
    """(text index, hash) of every run of three words; a shorter text has one shingle of all its words."""
    texts = np.repeat(np.arange(len(counts)), counts)
    starts = np.cumsum(counts) - counts
    place = np.arange(len(words)) - starts[texts]
    runs = np.maximum(np.minimum(counts, 1), counts - SHINGLE + 1)
    begins = np.flatnonzero(place < runs[texts])
    owner = texts[begins]
    mixed = np.zeros(len(begins), dtype=np.uint64)
    for at in range(SHINGLE):
        inside = place[begins] + at < counts[owner]
        mixed[inside] += _scrambled(words[begins[inside] + at]) * _PLACES[at]
    return owner, (_scrambled(mixed) >> np.uint64(32)).astype(np.uint32)


def _signatures(hashes: U32, starts: Ints, sizes: npt.NDArray[np.int64]) -> U32:
    """The smallest value of each hash function over each text's shingles [n, HASHES]; the largest where it has none."""
    found = np.full((len(sizes), HASHES), np.iinfo(np.uint32).max, dtype=np.uint32)
    filled = np.flatnonzero(sizes)
    if len(filled):
        wide = hashes.astype(np.uint64)
        for at in range(HASHES):
            values = ((wide * _FACTORS[at] + _SHIFTS[at]) >> np.uint64(32)).astype(np.uint32)
            found[filled, at] = np.minimum.reduceat(values, starts[filled])
    return found
