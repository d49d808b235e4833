"""SSR's closed form: from the noised statistics to item vectors, by empirical Bayes with the known noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modeling.core.recommend_statistics import SSR_SHARES, Array64, Statistics
from modeling.core.types import Array

# Tuned on the synthetic shop, public data: they cost a tenant nothing.
_WHITENING_FLOOR = 0.4
_WHITENING_NOISE = 1.6
_RIDGE_GRID = 10.0 ** np.arange(-3.0, 6.0, 0.5)  # prior signal over residual variance


@dataclass(frozen=True)
class Solution:
    """What the artefact holds: `log_p` [n], `B` [n, d], `direction` [d] (the people's mean direction)."""

    log_p: Array
    B: Array  # as the formula names it
    direction: Array


def popularity_only(noised: Statistics, features: Array, sigma: float) -> Solution:
    """The fallback: private log-popularity beside the catalogue's own features."""
    p = _floored(noised.popularity, sigma)
    zero = np.zeros(features.shape[1], dtype=np.float32)
    return Solution(_log_share(p), features.astype(np.float32), zero)


def solve(noised: Statistics, features: Array, sigma: float) -> Solution:
    """Item vectors B = m · (A₊/tr A + (.4 + 1.6 · noise level)/d · I)⁻¹ from one release of noise `sigma`.

    m is the mean direction of an item's people, less everybody's: a ridge regression on the item's text,
    plus the residual shrunk towards zero by its known noise. Post-processing, so it spends nothing.
    """
    p = _floored(noised.popularity, sigma / np.sqrt(SSR_SHARES["popularity"]))
    direction = noised.following.sum(axis=0) / p.sum()
    means = (noised.following - p[:, None] * direction) / p[:, None]
    trace, positive, level = _positive_part(noised.taste, sigma)
    variance = _variance(p, positive, trace, sigma)
    text = _ridge(features, means, 1.0 / variance.mean(axis=1))
    vectors = (text + _shrink(means - text, variance)) @ _whitening(positive / trace, level)
    return Solution(_log_share(p), vectors.astype(np.float32), direction.astype(np.float32))


def _log_share(p: Array64) -> Array:
    shares: Array = np.log(p / p.sum()).astype(np.float32)
    return shares


def _floored(popularity: Array64, noise: float) -> Array64:
    """Counts of at least a tenth of the mean, or half the noise if more, up to half the mean."""
    mean = max(float(popularity.mean()), 1e-6)
    floored: Array64 = np.maximum(popularity, max(0.1 * mean, min(0.5 * noise, 0.5 * mean)))
    return floored


def _variance(p: Array64, positive: Array64, trace: float, sigma: float) -> Array64:
    """Variance [n, d] of the mean rows' entries: the noise's, or people's own spread where that is larger.

    A person's part in row i is w times a direction whose squares follow the diagonal of A, and w² averages
    tr A / Σp.
    """
    noise = sigma**2 / SSR_SHARES["following"] / p**2
    spread = np.maximum(np.diag(positive) / max(float(np.trace(positive)), 1e-9), 1e-4)
    weight = np.sqrt(min(trace / float(p.sum()), 1.0))
    larger: Array64 = np.maximum(noise[:, None], weight * spread / p[:, None])
    return larger


def _ridge(features: Array, means: Array64, weight: Array64) -> Array64:
    """Fitted values [n, d] of a weighted ridge of the mean rows on the features, most likely penalty."""
    wide = features.astype(np.float64)
    wide /= np.sqrt((wide**2).sum(axis=1).mean())
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


def _shrink(residual: Array64, variance: Array64) -> Array64:
    """Residual times signal / (signal + noise); a direction's signal is its excess over the known noise."""
    weight = 1.0 / variance
    signal = np.maximum(((residual**2 - variance) * weight).sum(axis=0) / weight.sum(axis=0), 0.0)
    shrunk: Array64 = residual * (signal / (signal + variance))
    return shrunk


def _positive_part(taste: Array64, sigma: float) -> tuple[float, Array64, float]:
    """(trace, positive part, noise level: the noise's spectral norm over the mean eigenvalue)."""
    d = taste.shape[0]
    values, vectors = np.linalg.eigh(taste)
    positive = (vectors * np.maximum(values, 0.0)) @ vectors.T
    noise = sigma / np.sqrt(SSR_SHARES["taste"]) * np.sqrt(2.0 * d)
    trace = max(float(np.trace(taste)), noise, 1e-6)
    return trace, positive, float(noise / (trace / d))


def _whitening(shares: Array64, level: float) -> Array64:
    d = shares.shape[0]
    inverse: Array64 = np.linalg.inv(shares + (_WHITENING_FLOOR + _WHITENING_NOISE * level) / d * np.eye(d))
    return inverse
