"""Recipes into plans: the checks every job passes, and what quality to expect, before any data is touched."""

from __future__ import annotations

import math
from dataclasses import dataclass

from modeling.core import accounting, heads
from modeling.core.types import CannotTrain, Plan, Recipe, Shape

LARGEST_EPSILON = 10.0
SMALLEST_BATCH = 32
SMALLEST_RHO = 10.0  # mu * n / classes: below it class names alone do better than private training

OPEN_NOTES: tuple[str, ...] = ("Privacy is off: this model may reveal the people in its training data.",)


@dataclass(frozen=True)
class Quality:
    """A band of expected accuracy relative to training without privacy."""

    name: str
    low: float
    high: float


# By rho = mu n / K, from public data (ICD-10-CM, n = 300 to 17,285, class-name start below rho 100); ±5 points.
_BANDS: tuple[tuple[float, Quality], ...] = (
    (10.0, Quality("too small", 0.0, 0.55)),
    (20.0, Quality("poor", 0.62, 0.78)),
    (50.0, Quality("draft", 0.77, 0.88)),
    (150.0, Quality("fair", 0.85, 0.93)),
    (500.0, Quality("good", 0.91, 0.97)),
    (math.inf, Quality("near non-private", 0.95, 0.99)),
)


def plan(recipe: Recipe, shape: Shape, device: str = "cpu") -> Plan:
    """The plan of a recipe on data of this shape; raises CannotTrain where it cannot be private or useful."""
    check_budget(recipe, shape)
    return heads.load(recipe.task, recipe.method).plan(recipe, shape, device)


def check_budget(recipe: Recipe, shape: Shape) -> None:
    """Refuse budgets outside the house rules (privacy rule 14) and jobs without data; raises CannotTrain."""
    if shape.train_units < 1 or shape.rows < 1:
        raise CannotTrain("There are no rows to train on.", code="no_rows")
    if recipe.max_steps is not None and recipe.max_steps < 1:
        raise CannotTrain("max_steps must be at least 1.", code="invalid_max_steps")
    if recipe.epsilon is None:
        if not recipe.privacy_off_reason.strip():
            raise CannotTrain("Training without privacy needs a stated reason.", code="reason_required")
        return
    if not (math.isfinite(recipe.epsilon) and recipe.epsilon > 0):
        raise CannotTrain("Epsilon must be a positive number.", code="invalid_epsilon")
    if recipe.epsilon > LARGEST_EPSILON and not recipe.large_epsilon_allowed:
        raise CannotTrain(
            f"Epsilon {recipe.epsilon:g} promises little: the largest without an owner's override is "
            f"{LARGEST_EPSILON:g}.",
            code="epsilon_too_large",
        )
    if shape.train_units < SMALLEST_BATCH:
        raise CannotTrain(
            f"{shape.train_units} people (besides those held out to measure) are too few to hide one among them: "
            f"private training needs at least {SMALLEST_BATCH}, and useful models need hundreds.",
            code="too_few_units",
        )
    delta = delta_of(recipe, shape)
    largest = accounting.delta_for(shape.train_units)
    if not 0 < delta <= largest:
        raise CannotTrain(
            f"Delta must be positive and at most {largest:.1e} for {shape.train_units:,} people.",
            code="invalid_delta",
        )


def delta_of(recipe: Recipe, shape: Shape) -> float:
    """The recipe's delta, or the house rule for the number of training units."""
    return accounting.delta_for(shape.train_units) if recipe.delta is None else recipe.delta


def check_batch(expected: float) -> None:
    """Refuse an expected batch under SMALLEST_BATCH; raises CannotTrain."""
    if expected < SMALLEST_BATCH:
        raise CannotTrain(
            f"An expected batch of {expected:.0f} people is below the smallest allowed, {SMALLEST_BATCH}.",
            code="batch_too_small",
        )


def quality(rho: float) -> Quality:
    """Expected accuracy of a private text head relative to no privacy, by rho = mu * n / classes."""
    return next(band for limit, band in _BANDS if rho < limit)


def check_quality(recipe: Recipe, shape: Shape, *, rho: float) -> Quality:
    """The expected quality; raises CannotTrain, naming what to expect and what would be enough."""
    found = quality(rho)
    if rho >= SMALLEST_RHO or recipe.epsilon is None:
        return found
    needed = math.ceil(shape.train_units * SMALLEST_RHO / rho)
    raise CannotTrain(
        f"{shape.train_units:,} people in {shape.classes} classes at epsilon {recipe.epsilon:g} would give less "
        f"than about {found.high:.0%} of the accuracy possible without privacy. Bring about {needed:,} people, "
        "merge classes, or choose a larger epsilon.",
        code="too_few_units",
    )


def quality_notes(found: Quality, shape: Shape, *, rho: float) -> tuple[str, ...]:
    """The expectation as plain sentences for the job page and the card."""
    share = f"about {found.low:.0%} to {found.high:.0%} of the accuracy without privacy (±5 points)"
    notes = [f"Expected quality: {found.name}, {share}."]
    if shape.classes == 2 and rho < 150:
        notes.append(
            "With two classes and this little signal, expect at most 5 points over always guessing the larger."
        )
    return tuple(notes)
