"""Public item features, and the statistics SSR releases: sums where a person's part has norm at most 1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import sparse

from modeling.core.types import Array

Array64: TypeAlias = npt.NDArray[np.float64]
Indices: TypeAlias = npt.NDArray[np.int64]

WIDTH = 128  # principal components kept of the catalogue's text embeddings
ASKED_WIDTH = 64  # of them in which the first round asks, unless told otherwise
LEARNED_WIDTH = 40  # directions of the first round's item vectors in which the second round asks
SSR_SHARES: Mapping[str, float] = {"popularity": 0.08, "following": 0.86, "taste": 0.06}
SECOND_SHARES: Mapping[str, float] = {"popularity": 0.05, "following": 0.90, "taste": 0.05}
POPULARITY_SHARES: Mapping[str, float] = {"popularity": 1.0}
_PEOPLE_AT_ONCE = 4096


@dataclass(frozen=True)
class Statistics:
    """Sums over people of parts whose norm is at most 1 a person each.

    With item set S, w = 1/sqrt|S| and h = unit of the summed features: `popularity` [n] sums w over the items
    of S, `following` [n, d] sums w times the direction of the person's other items into each item's row,
    `taste` [d, d] sums h h'.
    """

    popularity: Array64
    following: Array64
    taste: Array64


def catalogue_features(embeddings: Array, width: int = WIDTH) -> Array:
    """PCA of the catalogue's text embeddings, [n, e] to [n, min(width, n-1, e)]; public: no noise."""
    centred = embeddings.astype(np.float64) - embeddings.mean(axis=0, dtype=np.float64)
    _, values, directions = np.linalg.svd(centred, full_matrices=False)
    kept = max(1, min(width, int((values > values[0] * 1e-6).sum())))
    axes = directions[:kept]
    signs = np.sign(axes[np.arange(kept), np.abs(axes).argmax(axis=1)])  # the same sign on every machine
    return np.ascontiguousarray(centred @ (axes * signs[:, None]).T, dtype=np.float32)


def asked_features(features: Array, width: int = ASKED_WIDTH) -> Array:
    """The catalogue's main directions [n, min(width, d)], half whitened, rows of length 1: what people are summed in.

    Without the whitening a few directions of the text hide the rest, and each direction asked costs the same noise.
    """
    kept = features[:, :width].astype(np.float64)
    spread = np.sqrt(np.sqrt((kept**2).sum(axis=0)))
    return unit(kept / np.maximum(spread, 1e-9)).astype(np.float32)


def unit(rows: npt.NDArray[np.floating]) -> Array64:
    """Rows divided by their norms, in float64; a zero row stays zero."""
    wide = rows.astype(np.float64)
    norms = np.linalg.norm(wide, axis=-1, keepdims=True)
    result: Array64 = np.divide(wide, norms, out=np.zeros_like(wide), where=norms > 0)
    return result


def item_sets(histories: Sequence[Sequence[int]], items: int) -> list[Indices]:
    """One sorted array of distinct items a person; numbers outside the catalogue (0..items-1) are dropped."""
    sets = [np.unique(np.asarray(history, dtype=np.int64)) for history in histories]
    return [found[(found >= 0) & (found < items)] for found in sets]


def collect(sets: Sequence[Indices], features: Array) -> Statistics:
    """The exact statistics of these people: private, to be stacked and noised before anything else."""
    n, d = features.shape
    total = Statistics(np.zeros(n), np.zeros((n, d)), np.zeros((d, d)))
    wide = features.astype(np.float64)
    for block in _blocks(sets):
        _add_block(total, block, wide)
    return total


def _blocks(sets: Sequence[Indices]) -> Iterator[list[Indices]]:
    filled = [found for found in sets if found.size]
    for start in range(0, len(filled), _PEOPLE_AT_ONCE):
        yield filled[start : start + _PEOPLE_AT_ONCE]


def _add_block(total: Statistics, block: list[Indices], features: Array64) -> None:
    sizes = np.array([found.size for found in block])
    person = np.repeat(np.arange(len(block)), sizes)
    item = np.concatenate(block)
    weight = 1.0 / np.sqrt(sizes.astype(np.float64))
    own = sparse.csr_matrix((np.ones(item.size), (person, item)), shape=(len(block), features.shape[0]))
    sums = own @ features
    direction = unit(sums)
    others = unit(sums[person] - features[item]) * weight[person, None]
    others[sizes[person] == 1] = 0.0  # rounding must not give a lone item a direction
    np.add.at(total.popularity, item, weight[person])
    entries = np.ones(item.size), (item, np.arange(item.size))
    receiving = sparse.csr_matrix(entries, shape=(features.shape[0], item.size))
    np.add(total.following, receiving @ others, out=total.following)
    np.add(total.taste, direction.T @ direction, out=total.taste)


def stack(statistics: Statistics, shares: Mapping[str, float]) -> Array64:
    """The released parts in one vector, scaled so that one person moves it by at most 1 (the shares' sum).

    `taste` is symmetric: its upper triangle is taken with off-diagonals times sqrt 2, which keeps its norm.
    """
    parts = [np.sqrt(share) * _flat(name, getattr(statistics, name)) for name, share in shares.items()]
    return np.concatenate(parts)


def unstack(vector: Array64, shares: Mapping[str, float], items: int, width: int) -> Statistics:
    """Undo `stack`, on the noised vector; parts that were not released are zero."""
    found = {
        "popularity": np.zeros(items),
        "following": np.zeros((items, width)),
        "taste": np.zeros((width, width)),
    }
    start = 0
    for name, share in shares.items():
        size = stacked_size({name: share}, items, width)
        part = vector[start : start + size] / np.sqrt(share)
        found[name] = _full(part, width) if name == "taste" else part.reshape(found[name].shape)
        start += size
    return Statistics(**found)


def stacked_size(shares: Mapping[str, float], items: int, width: int) -> int:
    """How many numbers `stack` gives."""
    sizes = {"popularity": items, "following": items * width, "taste": width * (width + 1) // 2}
    return sum(sizes[name] for name in shares)


def _flat(name: str, part: Array64) -> Array64:
    if name != "taste":
        return part.ravel()
    row, column = np.triu_indices(part.shape[0])
    symmetric = (part + part.T) / 2
    flat: Array64 = symmetric[row, column] * np.where(row == column, 1.0, np.sqrt(2.0))
    return flat


def _full(flat: Array64, width: int) -> Array64:
    row, column = np.triu_indices(width)
    full = np.zeros((width, width))
    full[row, column] = flat / np.where(row == column, 1.0, np.sqrt(2.0))
    full[column, row] = full[row, column]
    return full
