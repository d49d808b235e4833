"""How fast this deployment is: the factor between what plans say a run takes and what finished runs took."""

from __future__ import annotations

import math
from collections.abc import Sequence

from modeling.core import durations
from modeling.core.types import Plan
from modeling.models import Pace

LOOKED_AT = 50
# How much the fitted constants count beside runs of this deployment: less than one run of the same length.
TRUST_IN_CONSTANTS = 0.4
OWN = 4.0  # a run on the same data says more: how long its texts are is in it


def device_of(plan: Plan) -> str:
    """The device a plan was made for."""
    return str(plan.settings.get("device", "cpu"))[:20]


def estimate_seconds(plan: Plan, *, own: Sequence[tuple[float, float]] = ()) -> float:
    """How long a run should take here; `own` are (planned, measured) seconds of runs on the same data."""
    planned = durations.seconds(plan)
    rows = Pace.objects.filter(method=plan.method, device=device_of(plan)).order_by("-at")[:LOOKED_AT]
    seen = [(one.planned_seconds, one.seconds, 1.0) for one in rows]
    seen += [(said, took, OWN) for said, took in own]
    return planned * factor(planned, seen)


def factor(planned: float, seen: Sequence[tuple[float, float, float]]) -> float:
    """The weighted median of measured/planned over (planned, measured, weight); a run of another length counts less.

    The constants stand among them as one more run, so that with nothing measured the factor is 1.
    """
    ratios = [(1.0, TRUST_IN_CONSTANTS)]
    for said, took, weight in seen:
        distance = abs(math.log(said / planned))
        ratios.append((took / said, weight * math.exp(-2 * distance)))
    ratios.sort()
    half, total = sum(weight for _ratio, weight in ratios) / 2, 0.0
    for ratio, weight in ratios:
        total += weight
        if total >= half:
            return ratio
    return 1.0
