"""What quality to expect of a private table model before training, by the rarer answer's share of mu · n."""

from __future__ import annotations

import math

from modeling.core.expectations import Quality
from modeling.core.types import CannotTrain, Recipe, Shape

FEWEST = 30.0  # mu · n · share of the rarest class: below it, do not bother

# AUROC against the same model without privacy, by the signal with classes of equal size: fitted on eight public tables
# that no bench tests on (wa_churn, mlc_churn, attrition, HealthInsurance, CreditCard, stackoverflow, cells,
# DoctorVisits; n = 300 to 3,000, epsilon 1 / 3 / 8). Above 1 where noise keeps a small table from overfitting.
_BANDS: tuple[tuple[float, Quality], ...] = (
    (FEWEST, Quality("too small", 0.0, 0.97)),
    (80.0, Quality("poor", 0.82, 1.0)),
    (300.0, Quality("draft", 0.88, 1.02)),
    (1000.0, Quality("good", 0.95, 1.01)),
    (math.inf, Quality("near non-private", 0.98, 1.01)),
)


def expected_table(signal: float) -> Quality:
    """The band for mu · n · m, with m the share of the rarest class (one half for a number)."""
    return next(band for limit, band in _BANDS if signal < limit)


def check_table(recipe: Recipe, shape: Shape, *, mu: float) -> Quality:
    """The best band these people allow, with classes of equal size; raises CannotTrain where even that is too little.

    How rare the rarest class is stays private, so the plan cannot use it: `table_notes` says what follows from it.
    """
    best = mu * shape.train_units / max(shape.classes, 2)
    if best >= FEWEST:
        return expected_table(best)
    needed = math.ceil(shape.train_units * FEWEST / best)
    raise CannotTrain(
        f"{shape.train_units:,} people at epsilon {recipe.epsilon:g} are too few for a useful table model, even if all "
        f"answers were equally frequent. Bring at least {needed:,} people, or choose a larger epsilon.",
        code="too_few_units",
    )


def table_notes(found: Quality, shape: Shape, *, mu: float) -> tuple[str, ...]:
    """The expectation as plain sentences for the job page and the card."""
    loss = 100 * (1 - found.low)
    notes = [f"Expected quality: {found.name}, at most about {loss:.1f} % below training without privacy."]
    r = mu * shape.train_units
    if shape.classes and r / shape.classes >= FEWEST:
        notes.append(
            "That holds when answers are about equally frequent. With a rare answer: at most 2 % below from a share "
            f"of {_percent(300 / r)} of the people, and not useful under {_percent(FEWEST / r)}."
        )
    return tuple(notes)


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.5 else "50 %"
