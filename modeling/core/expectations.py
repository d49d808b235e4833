"""What quality to expect before training: a band by rho = mu n / K, fitted on public data, tested on other sets."""

from __future__ import annotations

from dataclasses import dataclass

SMALLEST_RHO = 10.0  # below it a private head has not beaten the class names by themselves
TWO_CLASS_RHO = 150.0  # below it two classes gain little over always guessing the larger
# Share of the accuracy without privacy that is lost, by rho: the median of 245 runs on ICD-10-CM descriptions alone
# (chapters, subsets and random unions of chapters; 2 to 21 classes, n = 150 to 5,000, epsilon 1, 3 and 8) follows
# LOSS rho^-POWER. With LEAST and MOST times that, and EVALUATION for what a few thousand held-out rows cannot tell
# apart, the band holds 95 % of them.
LOSS, POWER = 0.6, 0.5
LEAST, MOST = 0.2, 1.9
EVALUATION = 0.02
# Overlap of label sets loses more: nine runs on ICD chapters with seven more labels (tests/bench/several_labels.py).
LOSS_OF_SEVERAL = 1.6
_NAMES = ((20.0, "poor"), (50.0, "draft"), (150.0, "fair"), (500.0, "good"))


@dataclass(frozen=True)
class Quality:
    """A band of expected accuracy relative to training without privacy: 1.0 is as good as without."""

    name: str
    low: float
    high: float


def expected_text(rho: float, classes: int, units: int) -> Quality:
    """The band for a private text head at rho = mu · units / classes.

    Contains the measured figure in at least nine of ten runs on data that it was not fitted on
    (tests/bench/text_bands.py). `units` and `classes` enter through rho alone, which was measured to be enough.
    """
    return _band(rho, LOSS) if classes > 0 and units > 0 else _band(0.0, LOSS)


def expected_several(rho: float, classes: int, units: int) -> Quality:
    """The same for the overlap of label sets where rows have several labels; fitted on one set, tested on none."""
    return _band(rho, LOSS_OF_SEVERAL) if classes > 0 and units > 0 else _band(0.0, LOSS_OF_SEVERAL)


def _band(rho: float, constant: float) -> Quality:
    if rho < SMALLEST_RHO:
        return Quality("too small", 0.0, 1 - constant * SMALLEST_RHO**-POWER)
    loss = constant * rho**-POWER
    name = next((name for limit, name in _NAMES if rho < limit), "near non-private")
    return Quality(name, max(1 - MOST * loss - EVALUATION, 0.0), 1 - LEAST * loss + EVALUATION)


def settings_of(found: Quality) -> dict[str, float | str]:
    """The band as a plan's settings: what the quote and the card read."""
    return {"expected_quality": found.name, "expected_low": found.low, "expected_high": found.high}


def notes_of(found: Quality, *, classes: int = 0, rho: float = 0.0) -> tuple[str, ...]:
    """The expectation as plain sentences for the job page and the card."""
    notes = [
        f"Expected quality: {found.name}, about {found.low:.0%} to {found.high:.0%} of the accuracy without privacy."
    ]
    if classes == 2 and rho < TWO_CLASS_RHO:
        notes.append(
            "With two classes and this little signal, expect at most 5 points over always guessing the larger."
        )
    return tuple(notes)
