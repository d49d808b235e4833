"""DP-ALS (Chien et al. 2021, 2107.09802) with adaptive weights (2302.07975), user-level: measured beside our method.

Per item i a noised system: A_i = Σ ω_ui u uᵀ and b_i = Σ ω_ui u over its people u, with their vectors clipped to norm 1
and Σ_i ω_ui² = 1 a person, and the noised Gramian K = Σ u uᵀ. Popularity is released first and sets the weights,
ω_ui ∝ p_i^-γ. Public text features start the item vectors (the papers start at random: worse here). All releases
compose as Gaussian mechanisms of sensitivity 1, by the accounting of the core.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from modeling.core import accounting
from modeling.core.recommend_solution import floored
from modeling.core.recommend_statistics import Array64
from tests.bench.recommend_world import Scorer, Split, World

_AT_ONCE = 4096


@dataclass(frozen=True)
class Settings:
    """What was tuned on another world than the tested one, by some 75 tries."""

    width: int = 32
    iterations: int = 4
    skew: float = 0.0  # γ of the adaptive weights; 0: equal weights (.25 and .5 were tried and were worse)
    unobserved: float = 30.0  # weight of the Gramian of everybody
    ridge: float = 1000.0
    pull: float = 1.0  # of the person's own ridge
    systems: float = 0.2  # budget share of the A_i within an iteration
    gramian: float = 0.1
    counts: float = 0.1  # budget share of the popularity release
    log_popularity: float = 1.0  # weight of the log of the released popularity in the score
    scale: float = 8.0


TUNED = {
    8.0: Settings(),
    3.0: Settings(ridge=3000.0, pull=0.3),
    1.0: Settings(width=16, iterations=2, unobserved=10.0, scale=4.0),
}


def dp_als(world: World, split: Split, *, epsilon: float, seed: int, settings: Settings) -> Scorer:
    """Item vectors under (epsilon, delta of the house rule), person vectors from the history at request time."""
    source = np.random.default_rng(seed)
    delta = accounting.delta_for(len(split.training))
    whole = accounting.sigma_for(epsilon, delta, count=1)
    sizes = np.asarray(split.matrix.sum(axis=1)).ravel()
    equal = sparse.diags(1.0 / np.sqrt(np.maximum(sizes, 1.0))) @ split.matrix
    noise = whole / np.sqrt(settings.counts)
    counts = floored(
        np.asarray(equal.sum(axis=0)).ravel() + noise * source.standard_normal(world.items), noise
    )
    per_iteration = whole / np.sqrt((1 - settings.counts) / settings.iterations)
    prior = (counts / counts.mean()) ** -settings.skew
    weights = split.matrix @ sparse.diags(prior)
    norms = np.sqrt(np.asarray(weights.multiply(weights).sum(axis=1)).ravel())
    weights = (sparse.diags(1.0 / np.maximum(norms, 1e-9)) @ weights).tocsr()
    typical = prior / np.median(norms)
    items = world.features[:, : settings.width].astype(np.float64)
    items /= np.linalg.norm(items, axis=1).mean()
    for _ in range(settings.iterations):
        people = person_vectors(items, split.matrix, settings)
        people /= np.maximum(np.linalg.norm(people, axis=1, keepdims=True), 1.0)
        items = _item_step(people, weights, typical, per_iteration, source, settings)
        items /= max(float(np.linalg.norm(items, axis=1).mean()), 1e-9)
    popularity = settings.log_popularity * np.log(counts)
    return lambda past: popularity + settings.scale * (person_vectors(items, past, settings) @ items.T)


def person_vectors(items: Array64, past: sparse.csr_matrix, settings: Settings) -> Array64:
    """u [b, width]: ridge of 1 on the history's items, with everybody's items weighing `unobserved` a size."""
    width = items.shape[1]
    products = _products(items)
    everything = settings.unobserved * (items.T @ items) / len(items) + settings.pull * np.eye(width)
    found = np.zeros((past.shape[0], width))
    for start in range(0, past.shape[0], _AT_ONCE):
        rows = past[start : start + _AT_ONCE]
        systems = (rows @ products).reshape(-1, width, width) + everything
        found[start : start + _AT_ONCE] = np.linalg.solve(systems, (rows @ items)[:, :, None])[:, :, 0]
    return found


def _products(rows: Array64) -> Array64:
    found: Array64 = (rows[:, :, None] * rows[:, None, :]).reshape(len(rows), -1)
    return found


def _item_step(
    people: Array64,
    weights: sparse.csr_matrix,
    typical: Array64,
    sigma: float,
    source: np.random.Generator,
    settings: Settings,
) -> Array64:
    """One noised release of all systems, right sides and the Gramian, then v_i = (A_i⁺ + ω_i(αK⁺ + λ))⁻¹ b_i."""
    width, items = people.shape[1], weights.shape[1]
    shares = settings.systems, settings.gramian, 1.0 - settings.systems - settings.gramian
    exact = weights.T @ _products(people)
    systems = exact.reshape(items, width, width) + sigma / np.sqrt(shares[0]) * _symmetric(
        source, items, width
    )
    gramian = people.T @ people + sigma / np.sqrt(shares[1]) * _symmetric(source, 1, width)[0]
    right = weights.T @ people + sigma / np.sqrt(shares[2]) * source.standard_normal((items, width))
    everything = settings.unobserved * _positive(gramian[None])[0] / len(typical) + settings.ridge * np.eye(
        width
    )
    full = _positive(systems) + typical[:, None, None] * everything
    found: Array64 = np.linalg.solve(full, right[:, :, None])[:, :, 0]
    return found


def _symmetric(source: np.random.Generator, count: int, width: int) -> Array64:
    """Symmetric Gaussian noise [count, width, width] for matrices of Frobenius sensitivity 1 (others / sqrt 2)."""
    drawn = source.standard_normal((count, width, width))
    found: Array64 = (drawn + drawn.transpose(0, 2, 1)) / 2.0
    diagonal = np.arange(width)
    found[:, diagonal, diagonal] = drawn[:, diagonal, diagonal]
    return found


def _positive(matrices: Array64) -> Array64:
    values, vectors = np.linalg.eigh(matrices)
    found: Array64 = (vectors * np.maximum(values, 0.0)[:, None, :]) @ vectors.transpose(0, 2, 1)
    return found
