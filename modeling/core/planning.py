"""Recipes into plans: the checks every job passes, and what quality to expect, before any data is touched."""

from __future__ import annotations

import math
from dataclasses import replace

from modeling.core import accounting, audit_canaries, choosing, expectations, heads, sweeps
from modeling.core.expectations import SMALLEST_RHO, Quality
from modeling.core.types import CannotTrain, Plan, Recipe, Shape

LARGEST_EPSILON = 10.0
SMALLEST_DELTA = 1e-12  # near 1e-15 the accountant cuts tails off: no epsilon holds there
SMALLEST_BATCH = 32

OPEN_NOTES: tuple[str, ...] = ("Privacy is off: this model may reveal the people in its training data.",)


def plan(recipe: Recipe, shape: Shape, device: str = "cpu") -> Plan:
    """The plan of a recipe on data of this shape; raises CannotTrain where it cannot be private or useful."""
    check_budget(recipe, shape)
    if recipe.sweep_runs:
        return sweeps.plan(recipe, shape, device)
    choice = _choice(recipe, shape, device)
    found = heads.load(recipe.task, choice.method, base=recipe.base).plan(recipe, shape, device)
    if choice.reason:
        found = replace(found, notes=(*found.notes, choice.reason))
    audit_canaries.check(found)
    return found


def _choice(recipe: Recipe, shape: Shape, device: str) -> choosing.Choice:
    """The method: the caller's, or for texts the one that the rule picks, with its reason."""
    is_text = recipe.task == "classification" and recipe.base != heads.TABULAR
    if is_text and recipe.method == "auto":
        return choosing.choose_text(recipe, shape, delta=delta_of(recipe, shape), device=device)
    return choosing.Choice(recipe.method, "")


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
    if not SMALLEST_DELTA <= delta <= largest:
        raise CannotTrain(
            f"Delta must be at least {SMALLEST_DELTA:.0e} and at most {largest:.1e} for {shape.train_units:,} people.",
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


def check_quality(recipe: Recipe, shape: Shape, *, rho: float) -> Quality:
    """The expected quality; raises CannotTrain, naming what to expect and what would be enough."""
    found = expectations.expected_text(rho, shape.classes, shape.train_units)
    if rho >= SMALLEST_RHO or recipe.epsilon is None:
        return found
    needed = math.ceil(shape.train_units * SMALLEST_RHO / rho)
    raise CannotTrain(
        f"{shape.train_units:,} people in {shape.classes} classes at epsilon {recipe.epsilon:g} would usually "
        f"give less than about {found.high:.0%} of the accuracy possible without privacy. Bring about {needed:,} "
        "people, merge classes, or choose a larger epsilon.",
        code="too_few_units",
    )


def quality_notes(found: Quality, shape: Shape, *, rho: float) -> tuple[str, ...]:
    """The expectation as plain sentences for the job page and the card."""
    return expectations.notes_of(found, classes=shape.classes, rho=rho)
