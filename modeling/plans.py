"""Plans as JSON: what a job row keeps of its recipe and its resolved numbers, and back."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from modeling.core.types import Feature, Mechanism, Plan, Recipe, Shape


def dump_recipe(recipe: Recipe) -> dict[str, Any]:
    """A recipe as JSON; tuples become lists."""
    return {
        **asdict(recipe),
        "labels": list(recipe.labels),
        "features": [dump_feature(feature) for feature in recipe.features],
        "protected": [dump_feature(feature) for feature in recipe.protected],
        "target": dump_feature(recipe.target) if recipe.target else None,
    }


def dump_feature(feature: Feature) -> dict[str, Any]:
    """A declared column as JSON."""
    return {**asdict(feature), "categories": list(feature.categories)}


def load_feature(data: dict[str, Any]) -> Feature:
    """The inverse of `dump_feature`."""
    return Feature(**{**data, "categories": tuple(data.get("categories", ()))})


def load_recipe(data: dict[str, Any]) -> Recipe:
    """The inverse of `dump_recipe`."""
    target = data.get("target")
    return Recipe(
        **{
            **data,
            "labels": tuple(data["labels"]),
            "features": tuple(load_feature(one) for one in data.get("features", ())),
            "protected": tuple(load_feature(one) for one in data.get("protected", ())),
            "target": load_feature(target) if target else None,
        }
    )


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
