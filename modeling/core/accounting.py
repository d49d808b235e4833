"""Epsilon from mechanisms: PLD, the exact Gaussian curve, Rényi vectors for the filter; knows no torch.

Main adjacency is zero-out (one unit replaced by the empty record, n public); replace-one stands beside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache, reduce
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
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
# Of delta, kept for the runs that a selection of fixed length never makes: (1 + e^epsilon) times the chance that more
# are drawn (core/sweeps.HIDDEN, 1e-16) stays below it for epsilon up to 16 at delta 1e-6.
TAIL_SHARE = 1e-3


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
    """Epsilon of mechanisms chosen in advance: composed within a partition, the largest over partitions.

    By PLD, or the exact curve when every q is 1; a partition in which something is repeated and selected, by Renyi.
    """
    parts = _partitions(mechanisms)
    return max((_partition_epsilon(part, delta, adjacency) for part in parts), default=0.0)


def _partitions(mechanisms: Iterable[Mechanism]) -> list[list[Mechanism]]:
    """What composes with each other: the mechanisms of each partition that run at all."""
    partitions: dict[str, list[Mechanism]] = {}
    for mechanism in mechanisms:
        if mechanism.count > 0:
            partitions.setdefault(mechanism.partition, []).append(mechanism)
    return list(partitions.values())


def _partition_epsilon(used: Sequence[Mechanism], delta: float, adjacency: Adjacency) -> float:
    if any(mechanism.sigma <= 0 for mechanism in used):
        return math.inf
    if any(mechanism.repeats for mechanism in used):
        return filter_epsilon(add_rdp(rdp(mechanism, adjacency) for mechanism in used), delta)
    mu = _full_batch_mu(used)
    if all(mechanism.sampling_rate >= 1 for mechanism in used):
        return gaussian_epsilon(mu * _SENSITIVITY[adjacency], delta)
    return float(_composed(used, adjacency).get_epsilon_for_delta(delta))


def _full_batch_mu(mechanisms: Iterable[Mechanism]) -> float:
    """mu of everything with q = 1 together: Gaussian mechanisms compose by adding 1/sigma²."""
    return math.sqrt(sum(one.count / one.sigma**2 for one in mechanisms if one.sampling_rate >= 1))


def _composed(mechanisms: Sequence[Mechanism], adjacency: Adjacency) -> Any:
    """One privacy loss distribution of mechanisms of which at least one samples."""
    sampled = [mechanism for mechanism in mechanisms if mechanism.sampling_rate < 1]
    parts = [_pld(item.sigma, item.sampling_rate, adjacency).self_compose(item.count) for item in sampled]
    mu = _full_batch_mu(mechanisms)
    if mu:
        parts.append(_pld(1 / mu, 1.0, adjacency))
    return reduce(lambda left, right: left.compose(right), parts)


def distinguishing(mechanisms: Iterable[Mechanism], *, adjacency: Adjacency = "zero_out") -> float:
    """How often, at most, somebody is right who gives two neighbouring data sets even odds and sees what was released.

    (1 + TV)/2 with TV = delta(0), the total variation distance of the two worlds: Phi(mu/2) when every q is 1 (Dong,
    Roth & Su 2022), by PLD otherwise. With repeats: the smallest bound (e^epsilon + delta)/(1 + e^epsilon) on the Renyi
    curve (Kairouz, Oh & Viswanath 2015). 1 is certainty, 1/2 is guessing; the largest over partitions.
    """
    return max((_partition_distinguishing(part, adjacency) for part in _partitions(mechanisms)), default=0.5)


def _partition_distinguishing(used: Sequence[Mechanism], adjacency: Adjacency) -> float:
    if any(mechanism.sigma <= 0 for mechanism in used):
        return 1.0
    if any(mechanism.repeats for mechanism in used):
        vector = add_rdp(rdp(mechanism, adjacency) for mechanism in used)
        deltas = np.logspace(-12, -0.05, 120)
        return min(odds_bound(filter_epsilon(vector, float(delta)), float(delta)) for delta in deltas)
    if all(mechanism.sampling_rate >= 1 for mechanism in used):
        return math.exp(float(log_ndtr(_full_batch_mu(used) * _SENSITIVITY[adjacency] / 2)))
    return (1 + min(float(_composed(used, adjacency).get_delta_for_epsilon(0.0)), 1.0)) / 2


def odds_bound(epsilon: float, delta: float) -> float:
    """How often, at most, somebody with even odds is right under any (epsilon, delta) mechanism.

    (e^epsilon + delta)/(1 + e^epsilon): the corner of the region of false alarms and misses that (epsilon, delta)
    allows (Kairouz, Oh & Viswanath 2015, theorem 2.1); it is reached by randomised response.
    """
    return 1 - (1 - delta) / (1 + math.exp(min(epsilon, 700.0)))


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
    target: float,
    delta: float,
    *,
    count: int,
    sampling_rate: float = 1.0,
    beside: Sequence[Mechanism] = (),
    repeats: float = 0.0,
) -> float:
    """Noise multiplier with which `count` steps, composed with `beside`, meet (target, delta).

    By PLD, or sqrt(T)/mu when q = 1 and nothing stands beside; with `repeats` the whole selection meets it, by Renyi.

    The epsilon of the answer lies in (target - 0.02, target]. Raises ValueError unless both are positive, and when no
    noise is enough.
    """
    if count < 1 or not target > 0:
        raise ValueError("count and target epsilon must be positive")
    if beside and epsilon(beside, delta) >= target:
        raise ValueError("what stands beside takes the whole budget")
    if repeats:
        step = Mechanism("trial", 1.0, sampling_rate, count, repeats=repeats)
        return selection_sigma(target, delta, [step], beside=beside)
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


def selection_sigma(
    target: float, delta: float, parts: Sequence[Mechanism], *, beside: Sequence[Mechanism] = ()
) -> float:
    """The common factor on the parts' sigmas with which, composed with `beside`, they meet (target, delta) by Renyi.

    For parts with `repeats`. Raises ValueError when the selection alone costs more than the target.
    """

    def excess(log_factor: float) -> float:
        factor = math.exp(log_factor)
        scaled = [replace(part, sigma=part.sigma * factor) for part in parts]
        return epsilon([*beside, *scaled], delta) - (target - 0.005)

    low, high = math.log(1e-3), math.log(_LARGEST_SIGMA)
    if excess(high) > 0:
        raise ValueError("no amount of noise meets this epsilon for so many runs")
    root = float(brentq(excess, low, high, xtol=1e-5))
    while excess(root) > 0.005:
        root += 1e-4
    return math.exp(root)


def rdp(mechanism: Mechanism, adjacency: Adjacency = "zero_out") -> list[float]:
    """Renyi divergences of all compositions on ORDERS: zero-out adjacency is what a ledger entry stores."""
    values = _composed_rdp(mechanism, adjacency)
    if mechanism.repeats:
        values = _selected_rdp(mechanism, values, adjacency)
    return [float(value) for value in values]


def _composed_rdp(mechanism: Mechanism, adjacency: Adjacency) -> npt.NDArray[np.float64]:
    """Of one run, before any selection, on ORDERS.

    Whole orders: Mironov, Talwar & Zhang 2019, eq. 30. Orders between: (α−1)·D_α is convex in α, so the chord
    between the whole neighbours bounds it from above. Replace-one is two such steps, one out and one in: the weak
    triangle inequality D_α(P‖R) ≤ (α−½)/(α−1)·D_2α(P‖Q) + D_2α−1(Q‖R) (Mironov 2017, proposition 11).
    """
    orders = np.array(ORDERS)
    if mechanism.sampling_rate >= 1:
        return np.asarray(mechanism.count * orders * _SENSITIVITY[adjacency] ** 2 / (2 * mechanism.sigma**2))
    if adjacency == "zero_out":
        grid = np.array([1.0, *range(2, 8), *(order for order in ORDERS if order >= 8)])
        logs = [_log_moment(mechanism.sigma, mechanism.sampling_rate, int(order)) for order in grid]
        return np.asarray(mechanism.count * np.interp(orders, grid, np.array(logs)) / (orders - 1))

    def moment(order: int) -> float:
        return _log_moment(mechanism.sigma, mechanism.sampling_rate, order) / (order - 1)

    # D_α rises with α, so the next whole order bounds the ones below it.
    whole = [max(math.ceil(order), 2) for order in ORDERS]
    chain = [(order - 0.5) / (order - 1) * moment(2 * order) + moment(2 * order - 1) for order in whole]
    return mechanism.count * np.array(chain)


def _selected_rdp(
    mechanism: Mechanism, run: npt.NDArray[np.float64], adjacency: Adjacency
) -> npt.NDArray[np.float64]:
    """Of the best of a Poisson(m) number of runs, all else kept secret (Papernot & Steinke 2022, theorem 6).

    D_α + m·δ̂ + log(m + e^−m)/(α−1), where one run is (ε̂, δ̂) with e^ε̂ = 1 + 1/(α−1). e^−m is the chance that no run
    is made, the same for both neighbours. δ̂ is the exact curve when q = 1, else Renyi's (Canonne et al. 2020). D_α
    never falls in α, so a larger order's bound holds for the smaller ones.
    """
    orders = np.array(ORDERS)
    levels = np.log1p(1 / (orders - 1))
    one = replace(mechanism, repeats=0.0)
    if one.sampling_rate >= 1:
        mu = _full_batch_mu([one]) * _SENSITIVITY[adjacency]
        deltas = np.array([gaussian_delta(float(level), mu) for level in levels])
    else:
        bounds = (orders - 1) * (run - levels[:, None] + np.log1p(-1 / orders)) - np.log(orders)
        deltas = np.exp(np.minimum(bounds.min(axis=1), 0.0))
    expected = mechanism.repeats + np.exp(-mechanism.repeats)
    values = run + mechanism.repeats * deltas + np.log(expected) / (orders - 1)
    return np.asarray(np.minimum.accumulate(values[::-1])[::-1])


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
    kept = delta * (1 - TAIL_SHARE)
    bounds = total + np.log1p(-1 / orders) - np.log(kept * orders) / (orders - 1)
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
