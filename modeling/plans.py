"""Plans as JSON: what a job row keeps of its recipe and its resolved numbers, and back."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from modeling.core.types import Mechanism, Plan, Recipe, Shape


def dump_recipe(recipe: Recipe) -> dict[str, Any]:
    """A recipe as JSON; tuples become lists."""
    return {**asdict(recipe), "labels": list(recipe.labels)}


def load_recipe(data: dict[str, Any]) -> Recipe:
    """The inverse of `dump_recipe`."""
    return Recipe(**{**data, "labels": tuple(data["labels"])})


def dump_plan(plan: Plan) -> dict[str, Any]:
    """A plan as JSON; floats keep their exact value through jsonb."""
    return {
        **asdict(plan),
        "recipe": dump_recipe(plan.recipe),
        "mechanisms": [asdict(mechanism) for mechanism in plan.mechanisms],
        "settings": dict(plan.settings),
        "notes": list(plan.notes),
    }


def load_plan(data: dict[str, Any]) -> Plan:
    """The inverse of `dump_plan`."""
    return Plan(
        **{
            **data,
            "recipe": load_recipe(data["recipe"]),
            "shape": Shape(**data["shape"]),
            "mechanisms": tuple(Mechanism(**mechanism) for mechanism in data["mechanisms"]),
            "notes": tuple(data["notes"]),
        }
    )
