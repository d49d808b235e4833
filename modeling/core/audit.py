"""One-run privacy audit: how well planted canaries can be told from the outside, as a lower bound on epsilon.

Steinke, Nasr & Jagielski 2023 (arXiv 2305.08846): each of m canaries is put in by a fair coin; an auditor guesses r
of the coins from the result. More right guesses than (epsilon, delta) allows means that the promise is broken. Fewer
means only that this auditor found nothing: never a proof.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import bdtrc, gammaln, xlog1py, xlogy

from modeling.core.noise import Keystream

CONFIDENCE = 0.95
GUESSED_SHARE = (
    0.2  # of the canaries: the tenth of lowest scores is guessed out, the tenth of highest scores in
)
LARGEST = 50.0  # a lower bound above this is reported as this
VIOLATION = "violation detected"
NOTHING_FOUND = "no violation detected"


@dataclass(frozen=True)
class Audit:
    """What an audit found. `epsilon_lower_bound` holds with `confidence`; the verdict compares it with the claim."""

    canaries: int
    guesses: int
    correct: int
    epsilon_lower_bound: float
    epsilon_claimed: float | None  # None: privacy was off
    confidence: float
    verdict: str

    def as_report(self) -> dict[str, Any]:
        """For a card."""
        return asdict(self)


def coins(count: int) -> npt.NDArray[np.bool_]:
    """Which canaries go in, bool [count]: fair coins from a cryptographic source."""
    return Keystream().uniform(count) < 0.5


def p_value(epsilon: float, delta: float, *, canaries: int, guesses: int, correct: int) -> float:
    """The largest chance of so many right guesses under (epsilon, delta): theorem 5.2 of the paper.

    beta + 2 m delta alpha, where beta = P[B >= v], alpha = max over i of P[v > B >= v − i]/i, and B counts the right
    guesses of r independent ones that are right with chance e^epsilon/(1 + e^epsilon).
    """
    chance = 1 / (1 + math.exp(-epsilon))
    beta = float(bdtrc(correct - 1, guesses, chance)) if correct else 1.0  # P[B > v − 1]
    if not delta or not correct:
        return min(beta, 1.0)
    below = np.cumsum(_binomial(np.arange(correct - 1, -1, -1), guesses, chance))
    alpha = float(np.max(below / np.arange(1, correct + 1)))
    return min(beta + 2 * canaries * delta * alpha, 1.0)


def _binomial(k: npt.NDArray[np.int64], n: int, chance: float) -> npt.NDArray[np.float64]:
    """P[B = k] of a binomial count."""
    ways = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    return np.asarray(np.exp(ways + xlogy(k, chance) + xlog1py(n - k, -chance)))


def lower_bound(
    delta: float, *, canaries: int, guesses: int, correct: int, confidence: float = CONFIDENCE
) -> float:
    """The largest epsilon that so many right guesses contradict with this confidence; 0 when none is."""

    def excess(epsilon: float) -> float:
        return p_value(epsilon, delta, canaries=canaries, guesses=guesses, correct=correct) - (1 - confidence)

    if excess(0.0) >= 0:
        return 0.0
    if excess(LARGEST) < 0:
        return LARGEST
    return float(brentq(excess, 0.0, LARGEST, xtol=1e-4))


def judge(
    scores: npt.NDArray[np.float64],
    included: npt.NDArray[np.bool_],
    *,
    claimed: float | None,
    delta: float,
    share: float = GUESSED_SHARE,
) -> Audit:
    """Guess the extremes of `scores` [m] (higher: more likely in) and compare with the coins `included` [m].

    How many are guessed is fixed before the scores are seen, or the bound would not hold.
    """
    each = max(1, round(share * len(scores) / 2))
    order = np.argsort(scores, kind="stable")
    correct = int(included[order[-each:]].sum() + (~included[order[:each]]).sum())
    bound = lower_bound(delta, canaries=len(scores), guesses=2 * each, correct=correct)
    broken = claimed is not None and bound > claimed
    return Audit(
        canaries=len(scores),
        guesses=2 * each,
        correct=correct,
        epsilon_lower_bound=bound,
        epsilon_claimed=claimed,
        confidence=CONFIDENCE,
        verdict=VIOLATION if broken else NOTHING_FOUND,
    )
