"""What an epsilon means for one person, in sentences: how often somebody who suspects can be right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from modeling.core import accounting
from modeling.core.types import Mechanism

# The hypothesis-testing view (Wasserman & Zhou 2010; Kairouz, Oh & Viswanath 2015, theorem 2.1): whoever guesses which
# of two neighbouring data sets was used has false alarms and misses with FA + e^epsilon M >= 1 - delta, and the same
# with the two exchanged. From even odds the chance of being right, 1 - (FA + M)/2, is largest where both are equal:
# (e^epsilon + delta)/(1 + e^epsilon). One (epsilon, delta) is one point of what a mechanism promises: its whole curve
# gives the smaller (1 + TV)/2, for instance Phi(mu/2) for Gaussian noise on all rows.

NEARLY = "nearly 100 %"


@dataclass(frozen=True)
class Odds:
    """How often, at most, somebody is right who starts from even odds; 0.5 is guessing, 1 is certainty."""

    in_or_out: float  # whether a record was in the data, or stood empty (zero-out)
    which: float  # which of two records stood in its place (replace-one)


def odds(mechanisms: Sequence[Mechanism]) -> Odds:
    """The exact bounds for mechanisms that ran."""
    return Odds(
        accounting.distinguishing(mechanisms),
        accounting.distinguishing(mechanisms, adjacency="replace_one"),
    )


def sentences(
    epsilon: float,
    delta: float,
    unit_word: str,
    *,
    found: Odds | None = None,
    replace_one: float | None = None,
) -> tuple[str, ...]:
    """What (epsilon, delta) under zero-out promises one `unit_word` ("patient"), in plain English.

    `found` are the exact odds of the mechanisms, where they are known; `replace_one` is epsilon under replace-one, and
    without either nothing is said about which of two records it was.
    """
    certain = accounting.odds_bound(epsilon, delta)
    told = min(certain, found.in_or_out) if found else certain
    suspecting = (
        f"Someone who already suspects that one {unit_word}'s record is in the data, and gives it even odds, could be "
        f"right {often(told)} after seeing everything that leaves; guessing is right 50 %."
    )
    lines = [suspecting]
    which = [accounting.odds_bound(replace_one, delta)] if replace_one is not None else []
    which += [found.which] if found else []
    if which:
        lines.append(
            f"Someone who knows two versions of a {unit_word}'s record, and asks which of them was used, could be "
            f"right {often(min(which))}."
        )
    lines.append(
        f"This holds whatever else they know or learn later, and for every {unit_word} alike; the bound that epsilon "
        f"{_number(epsilon)} promises by itself, for any method, is {percent(certain)}."
    )
    return tuple(lines)


def often(share: float) -> str:
    """A bound on how often somebody is right: "at most 79.8 % of the time"."""
    return f"at most {percent(share)} of the time" if percent(share) != NEARLY else "nearly always"


def percent(share: float) -> str:
    """A probability below 1 as a percentage rounded up, so that the sentence stays true: 0.7976 is "79.8 %"."""
    digits = 1 if share < 0.999 else 2
    scale = 10.0 ** (digits + 2)
    rounded = math.ceil(share * scale - 1e-9) / scale
    if rounded >= 1 > share:
        return NEARLY
    return f"{100 * rounded:.{digits}f} %"


def _number(epsilon: float) -> str:
    return f"{epsilon:.2g}" if epsilon < 1 else f"{epsilon:.3g}"
