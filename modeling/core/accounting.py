"""Epsilon from mechanisms: PLD, the exact Gaussian curve, Rényi vectors for the filter; knows no torch.

Main adjacency is zero-out (one unit replaced by the empty record, n public); replace-one stands beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache, reduce
from typing import Any, Literal

import numpy as np
from scipy.optimize import brentq
from scipy.special import gammaln, log_ndtr, logsumexp

from modeling.core.types import Mechanism

Adjacency = Literal["zero_out", "replace_one"]

PLD_INTERVAL = 1e-3
# The grid is part of every ledger entry: never reorder or shorten it, a longer one is a new ledger format.
ORDERS: tuple[float, ...] = (
    *(1.1, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 2.75, 3.0, 3.25, 3.5, 3.75, 4.0, 4.5, 5.0, 5.5),
    *(float(order) for order in range(6, 65)),
    *(72.0, 80.0, 96.0, 128.0, 192.0, 256.0, 384.0, 512.0, 1024.0),
)
_RELATIONS = {"zero_out": "REPLACE_SPECIAL", "replace_one": "REPLACE_ONE"}  # dp-accounting's names
_SENSITIVITY = {"zero_out": 1.0, "replace_one": 2.0}
_LARGEST_SIGMA = 1e6


def delta_for(units: int) -> float:
    """The house rule for n units: min(1e-5, 1/n^1.1)."""
    return min(1e-5, math.pow(max(units, 1), -1.1))


def gaussian_delta(epsilon: float, mu: float) -> float:
    """Delta of a mu-GDP mechanism at epsilon (Balle & Wang 2018): Φ(−ε/μ + μ/2) − e^ε Φ(−ε/μ − μ/2)."""
    if mu <= 0:
        return 0.0
    upper = log_ndtr(-epsilon / mu + mu / 2)
    lower = epsilon + log_ndtr(-epsilon / mu - mu / 2)
    return float(-math.exp(upper) * math.expm1(min(lower - upper, 0.0)))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The smallest epsilon >= 0 at which a mu-GDP mechanism has this delta: the exact Gaussian curve."""
    if mu <= 0 or gaussian_delta(0.0, mu) <= delta:
        return 0.0
    ceiling = 1.0
    while gaussian_delta(ceiling, mu) > delta:
        ceiling *= 2
    return float(brentq(lambda epsilon: gaussian_delta(epsilon, mu) - delta, 0.0, ceiling, xtol=1e-10))


def gaussian_mu(epsilon: float, delta: float) -> float:
    """The largest mu whose Gaussian curve passes (epsilon, delta): about 1.666 at (8, 1e-5)."""
    ceiling = 1.0
    while gaussian_delta(epsilon, ceiling) < delta:
        ceiling *= 2
    mu = brentq(lambda value: gaussian_delta(epsilon, value) - delta, 1e-9, ceiling, xtol=1e-12)
    return float(mu) * (1 - 1e-9)


def epsilon(mechanisms: Iterable[Mechanism], delta: float, *, adjacency: Adjacency = "zero_out") -> float:
    """Epsilon of mechanisms chosen in advance: composed within a partition, the largest over partitions."""
    partitions: dict[str, list[Mechanism]] = {}
    for mechanism in mechanisms:
        partitions.setdefault(mechanism.partition, []).append(mechanism)
    return max((_partition_epsilon(part, delta, adjacency) for part in partitions.values()), default=0.0)


def _partition_epsilon(mechanisms: Sequence[Mechanism], delta: float, adjacency: Adjacency) -> float:
    used = [mechanism for mechanism in mechanisms if mechanism.count > 0]
    if any(mechanism.sigma <= 0 for mechanism in used):
        return math.inf
    full = [mechanism for mechanism in used if mechanism.sampling_rate >= 1]
    sampled = [mechanism for mechanism in used if mechanism.sampling_rate < 1]
    mu = math.sqrt(sum(mechanism.count / mechanism.sigma**2 for mechanism in full))
    if not sampled:
        return gaussian_epsilon(mu * _SENSITIVITY[adjacency], delta)
    parts = [_pld(item.sigma, item.sampling_rate, adjacency).self_compose(item.count) for item in sampled]
    if full:
        parts.append(_pld(1 / mu, 1.0, adjacency))
    total = reduce(lambda left, right: left.compose(right), parts)
    return float(total.get_epsilon_for_delta(delta))


@lru_cache(maxsize=64)
def _pld(sigma: float, sampling_rate: float, adjacency: Adjacency) -> Any:
    """The privacy loss distribution of one step, discretised pessimistically (connect the dots)."""
    # Loaded here: most processes that read a ledger never compute a curve, and this costs a second and 60 MB.
    from dp_accounting.pld import privacy_loss_distribution
    from dp_accounting.privacy_accountant import NeighboringRelation

    return privacy_loss_distribution.from_gaussian_mechanism(
        sigma,
        sensitivity=_SENSITIVITY["zero_out"],
        value_discretization_interval=PLD_INTERVAL,
        sampling_prob=sampling_rate,
        neighboring_relation=NeighboringRelation[_RELATIONS[adjacency]],
    )


def sigma_for(
    target: float, delta: float, *, count: int, sampling_rate: float = 1.0, beside: Sequence[Mechanism] = ()
) -> float:
    """Noise multiplier with which `count` steps, composed with `beside`, meet (target, delta).

    By PLD, or sqrt(T)/mu when q = 1 and nothing stands beside.

    The epsilon of the answer lies in (target - 0.02, target]. Raises ValueError unless both are positive.
    """
    if count < 1 or not target > 0:
        raise ValueError("count and target epsilon must be positive")
    if beside and epsilon(beside, delta) >= target:
        raise ValueError("what stands beside takes the whole budget")
    if sampling_rate >= 1 and not beside:
        return math.sqrt(count) / gaussian_mu(target, delta)

    def excess(log_sigma: float) -> float:
        step = Mechanism("trial", math.exp(log_sigma), sampling_rate, count)
        return epsilon([*beside, step], delta) - (target - 0.005)

    # Renyi divergence overstates, so its answer is the upper end of the search and close to it.
    high = math.log(_rdp_sigma(target, delta, count, sampling_rate, beside))
    low = high - 0.1
    while excess(low) <= 0:
        high, low = low, low - 0.2
    root = float(brentq(excess, low, high, xtol=1e-4, rtol=1e-6))
    while excess(root) > 0.005:
        root += 2e-4
    return math.exp(root)


def _rdp_sigma(
    target: float, delta: float, count: int, sampling_rate: float, beside: Sequence[Mechanism]
) -> float:
    """The noise multiplier that meets the target by Renyi accounting, within a thousandth."""

    taken = [rdp(mechanism) for mechanism in beside]

    def excess(log_sigma: float) -> float:
        step = Mechanism("trial", math.exp(log_sigma), sampling_rate, count)
        return filter_epsilon(add_rdp([*taken, rdp(step)]), delta) - target

    low, high = math.log(0.1), math.log(_LARGEST_SIGMA)
    if (
        excess(high) > 0
    ):  # by Renyi's looser count nothing is left, by PLD a little may be: search from far above
        return _LARGEST_SIGMA
    return math.exp(float(brentq(excess, low, high, xtol=1e-3))) * 1.002


def rdp(mechanism: Mechanism) -> list[float]:
    """Renyi divergences of all compositions on ORDERS, zero-out adjacency: what a ledger entry stores.

    Whole orders: Mironov, Talwar & Zhang 2019, eq. 30. Orders between: (α−1)·D_α is convex in α, so the chord
    between the whole neighbours bounds it from above.
    """
    orders = np.array(ORDERS)
    if mechanism.sampling_rate >= 1:
        values = orders / (2 * mechanism.sigma**2)
    else:
        grid = np.array([1.0, *range(2, 8), *(order for order in ORDERS if order >= 8)])
        logs = [_log_moment(mechanism.sigma, mechanism.sampling_rate, int(order)) for order in grid]
        values = np.interp(orders, grid, np.array(logs)) / (orders - 1)
    return [float(value) for value in mechanism.count * values]


@lru_cache(maxsize=8192)
def _log_moment(sigma: float, sampling_rate: float, order: int) -> float:
    """log E[(p/q)^order] of one subsampled Gaussian step: (order − 1) times its Renyi divergence."""
    if order == 1:
        return 0.0
    k = np.arange(order + 1)
    terms = gammaln(order + 1) - gammaln(k + 1) - gammaln(order - k + 1) + k * math.log(sampling_rate)
    terms += (order - k) * math.log1p(-sampling_rate) + k * (k - 1) / (2 * sigma**2)
    return max(float(logsumexp(terms)), 0.0)


def add_rdp(vectors: Iterable[Sequence[float]]) -> list[float]:
    """The filter's running sum of Renyi vectors on ORDERS."""
    total = np.zeros(len(ORDERS))
    for vector in vectors:
        total += np.asarray(vector)
    return [float(value) for value in total]


def filter_epsilon(rdp_sum: Sequence[float], delta: float) -> float:
    """Epsilon of a sum of Renyi vectors, valid for adaptively chosen jobs (Canonne et al. 2020, prop. 12)."""
    orders, total = np.array(ORDERS), np.asarray(rdp_sum, dtype=float)
    if not total.any():
        return 0.0
    bounds = total + np.log1p(-1 / orders) - np.log(delta * orders) / (orders - 1)
    return max(float(np.min(bounds)), 0.0)


epsilon_from_rdp = filter_epsilon


def to_record(mechanism: Mechanism) -> dict[str, str | int]:
    """A mechanism as JSON without rounding: floats as hexadecimal text."""
    return {
        "name": mechanism.name,
        "sigma": mechanism.sigma.hex(),
        "sampling_rate": float(mechanism.sampling_rate).hex(),
        "count": mechanism.count,
        "clip": float(mechanism.clip).hex(),
        "partition": mechanism.partition,
        "repeats": float(mechanism.repeats).hex(),
    }


def from_record(record: dict[str, Any]) -> Mechanism:
    """The inverse of `to_record`."""
    return Mechanism(
        name=str(record["name"]),
        sigma=float.fromhex(record["sigma"]),
        sampling_rate=float.fromhex(record["sampling_rate"]),
        count=int(record["count"]),
        clip=float.fromhex(record["clip"]),
        partition=str(record["partition"]),
        repeats=float.fromhex(record.get("repeats", "0x0p+0")),
    )
