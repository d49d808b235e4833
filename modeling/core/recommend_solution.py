"""SSR's closed form: from noised statistics to item vectors, by empirical Bayes with the known noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from modeling.core.recommend_statistics import Array64, Statistics
from modeling.core.types import Array

# Tuned on synthetic worlds other than the demo shop: they cost a tenant nothing.
_WHITENING_FLOOR = 0.4
_WHITENING_NOISE = 1.6
_RIDGE_GRID = 10.0 ** np.arange(-3.0, 6.0, 0.5)  # prior signal over residual variance
_SMALLEST = 1e-12
_GRID, _EM_STEPS = 40, 60


@dataclass(frozen=True)
class Learned:
    """One round's answer over the features [n, d] it was asked in.

    `vectors` [n, d]: B of the score (h - direction)·B_i. `lengths` [n]: the root of the posterior second moment of each
    row, so that vectors / lengths is short where little is known. `certainty` in [0, 1]: the median share of that
    moment which the vector itself explains.
    """

    features: Array
    vectors: Array64
    lengths: Array64
    direction: Array64
    certainty: float

    @property
    def soft(self) -> Array64:
        """Rows of length at most 1 [n, d]: unit where an item is known, shorter where it is not."""
        rows: Array64 = self.vectors / self.lengths[:, None]
        return rows


def log_share(counts: Array64, noise: float) -> Array:
    """Expected log-popularity [n] of counts with Gaussian noise of this standard deviation (0: exact counts).

    The prior is the discrete distribution of true counts that makes the noised ones most likely (Kiefer & Wolfowitz
    1956, by EM), so that counts that could all be noise come out alike.
    """
    p = floored(counts, 0.0)
    if noise:
        mean = max(float(counts.mean()), 1e-6)
        grid = np.geomspace(0.1 * mean, max(float(counts.max()), 2.0 * mean), _GRID)
        log_density = -0.5 * ((counts[:, None] - grid) / noise) ** 2
        density = np.exp(log_density - log_density.max(axis=1, keepdims=True))
        prior = np.full(_GRID, 1.0 / _GRID)
        for _ in range(_EM_STEPS):
            posterior = density * prior
            posterior /= posterior.sum(axis=1, keepdims=True)
            prior = posterior.mean(axis=0)
        p = np.exp(posterior @ np.log(grid))
    shares: Array = np.log(p / p.sum()).astype(np.float32)
    return shares


def floored(popularity: Array64, noise: float) -> Array64:
    """Counts of at least a tenth of the mean, or half the noise if more, up to half the mean."""
    mean = max(float(popularity.mean()), 1e-6)
    raised: Array64 = np.maximum(popularity, max(0.1 * mean, min(0.5 * noise, 0.5 * mean)))
    return raised


def learn(
    noised: Statistics, features: Array, sigma: float, shares: Mapping[str, float], p: Array64
) -> Learned:
    """Item vectors B = m · (A₊/tr A + (.4 + 1.6 · noise level)/d · I)⁻¹ from one release of noise `sigma`.

    m is the mean direction of an item's people, less everybody's: a ridge regression on the item's features, plus the
    residual under a Gaussian prior whose covariance is what the residuals show beyond the noise and people's own
    spread (a Wiener filter). `p` [n] are the floored counts. Post-processing, so it spends nothing.
    """
    direction = noised.following.sum(axis=0) / p.sum()
    means = (noised.following - p[:, None] * direction) / p[:, None]
    trace, positive, level = _positive_part(noised.taste, sigma / np.sqrt(shares["taste"]))
    taste = positive / max(float(np.trace(positive)), _SMALLEST)
    noise = sigma**2 / shares["following"] / p**2
    # A person adds w times a direction to a row: w² is about (people / Σp)², and an item's mean has 1/p of the spread.
    spread = taste * min(trace / float(p.sum()), 1.0) ** 2
    total = noise + float(np.trace(spread)) / len(taste) / p
    fitted = _ridge(features, means, 1.0 / total)
    residual, doubt, axes = _wiener(means - fitted, noise, spread, p, 1.0 / total)
    whitening = _whitening(taste, level)
    vectors = (fitted + residual) @ whitening
    unknown = doubt @ np.einsum("ij,ik,kj->j", axes, whitening @ whitening, axes)
    moments = (vectors**2).sum(axis=1)
    lengths = np.sqrt(moments + unknown + _SMALLEST)
    return Learned(features, vectors, lengths, direction, float(np.median(moments / lengths**2)))


def next_features(learned: Learned, width: int) -> Array:
    """What the next round asks in [n, min(width, n - 1, d)]: the main directions of the soft vectors."""
    left, values, _ = np.linalg.svd(learned.soft, full_matrices=False)
    kept = max(1, min(width, len(left) - 1, int((values > values[0] * 1e-6).sum())))
    return np.ascontiguousarray(left[:, :kept] * values[:kept], dtype=np.float32)


def _wiener(
    residual: Array64, noise: Array64, spread: Array64, p: Array64, weight: Array64
) -> tuple[Array64, Array64, Array64]:
    """(posterior means [n, d], posterior variances [n, d] along the axes, axes [d, d] in columns)."""
    weight = weight / weight.sum()
    width = residual.shape[1]
    excess = (residual * weight[:, None]).T @ residual
    excess -= float(weight @ noise) * np.eye(width) + float(weight @ (1.0 / p)) * spread
    values, axes = np.linalg.eigh(excess)
    signal = np.maximum(values, 0.0) + _SMALLEST
    own = np.maximum(np.einsum("ij,ik,kj->j", axes, spread, axes), 0.0)
    variance = noise[:, None] + own / p[:, None]
    kept = signal / (signal + variance)
    return ((residual @ axes) * kept) @ axes.T, variance * kept, axes


def _ridge(features: Array, means: Array64, weight: Array64) -> Array64:
    """Fitted values [n, d] of a weighted ridge of the mean rows on the features, most likely penalty."""
    wide = features.astype(np.float64)
    wide /= max(float(np.sqrt((wide**2).sum(axis=1).mean())), _SMALLEST)
    root = np.sqrt(weight / weight.mean())[:, None]
    left, values, _ = np.linalg.svd(root * wide, full_matrices=False)
    projected = left.T @ (root * means)
    freedom = max(len(means) - len(values), 1)
    residual = (((root * means) ** 2).sum(axis=0) - (projected**2).sum(axis=0)) / freedom
    residual = np.maximum(residual, 1e-12)

    def likelihood(ratio: float) -> float:
        spread = 1.0 + ratio * values**2
        fit = (projected**2 / (residual * spread[:, None])).sum()
        return -0.5 * float(np.log(spread).sum() * means.shape[1] + fit)

    best = max(_RIDGE_GRID, key=likelihood) * values**2
    fitted: Array64 = (left * (best / (1.0 + best))) @ projected / root
    return fitted


def _positive_part(taste: Array64, noise: float) -> tuple[float, Array64, float]:
    """(trace, positive part, noise level: the noise's spectral norm over the mean eigenvalue)."""
    d = taste.shape[0]
    values, vectors = np.linalg.eigh(taste)
    positive = (vectors * np.maximum(values, 0.0)) @ vectors.T
    norm = noise * float(np.sqrt(2.0 * d))
    trace = max(float(np.trace(taste)), norm, 1e-6)
    return trace, positive, norm / (trace / d)


def _whitening(shares: Array64, level: float) -> Array64:
    d = shares.shape[0]
    inverse: Array64 = np.linalg.inv(shares + (_WHITENING_FLOOR + _WHITENING_NOISE * level) / d * np.eye(d))
    return inverse
