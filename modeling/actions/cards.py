"""The model card: filled from artefacts only (plan, ledger, released metrics), never from what somebody remembers."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from modeling.actions.accounts import ROW_UNIT
from modeling.actions.privacy import Cost
from modeling.core import accounting
from modeling.core.bases import BASES
from modeling.core.types import Plan, Trained
from modeling.models import Job, PrivacyEntry
from modeling.plans import load_plan
from modeling.queries.privacy import Spending, root_of, spending_of
from tenants.models import Tenant

FORMAT = 1
CODE = ("torch", "opacus", "dp-accounting", "numpy", "safetensors")


def build_card(
    tenant: Tenant, job: Job, trained: Trained, cost: Cost, *, name: str, digest: str
) -> dict[str, Any]:
    """The card as JSON. `metrics` hold released (noised and charged) or public numbers only."""
    plan = load_plan(job.plan)
    base = BASES[job.base]
    lineage = _lineage(tenant, job)
    return {
        "format": FORMAT,
        "model": name,
        "tenant": tenant.slug,
        "task": job.task,
        "method": plan.method,
        "base": {"id": base.id, "name": base.name, "licence": base.licence, "revision": base.revision},
        "job": job.public_id,
        "artefact": {"sha256": digest, "format": "safetensors"},
        "data": _data(job, plan),
        "privacy": _privacy(plan, cost) | {"lineage": _lineage_facts(lineage)},
        "metrics": trained.metrics,
        "training": {
            "steps": trained.steps,
            "steps_planned": plan.steps,
            "seconds": round(trained.seconds, 1),
        },
        "notes": list(plan.notes),
        "limits": _limits(plan, lineage),
        "code": {package: version(package) for package in CODE},
    }


def _data(job: Job, plan: Plan) -> dict[str, Any]:
    dataset_version = job.dataset_version
    assert dataset_version is not None  # a job that trained was admitted
    return {
        "dataset": dataset_version.dataset.public_id,
        "version": dataset_version.number,
        "content_hash": dataset_version.content_hash,
        "rows": plan.shape.rows,
        "training_units": plan.shape.train_units,
        "held_out_units": plan.shape.held_out_units,
        "items": plan.shape.items,
        "columns": job.recipe.get("columns", {}),
        "labels": list(plan.recipe.labels),
        "declared_public": ["number of units", "number of rows", *_DECLARED.get(plan.recipe.task, ())],
    }


_DECLARED = {"classification": ("label names",), "recommendation": ("catalogue",)}


def _lineage(tenant: Tenant, job: Job) -> Spending:
    """What these people have spent over all jobs, this one included: the caller has settled it."""
    entry = PrivacyEntry.objects.of(tenant).filter(job=job).select_related("account").order_by("seq")[0]
    return spending_of(tenant, root_of(tenant, entry.account))


def _lineage_facts(lineage: Spending) -> dict[str, Any]:
    return {
        "epsilon_used": None if lineage.no_bound else lineage.used,
        "epsilon_lifetime": None if lineage.no_bound else lineage.lifetime_epsilon,
        "delta": lineage.delta,
        "no_bound": lineage.no_bound,
    }


def _privacy(plan: Plan, cost: Cost) -> dict[str, Any]:
    unit = plan.recipe.unit or ROW_UNIT
    if not plan.mechanisms:
        return {"mode": "off", "reason": plan.recipe.privacy_off_reason, "unit": unit}
    return {
        "mode": "on",
        "unit": unit,
        "unit_means": "each row is one person" if unit == ROW_UNIT else f"all rows with the same {unit}",
        "adjacency": "zero-out (one unit's records removed, their number public)",
        "epsilon": cost.epsilon,
        "epsilon_replace_one": cost.epsilon_replace_one,
        "epsilon_asked": plan.recipe.epsilon,
        "delta": plan.delta,
        "accountant": f"PLD, interval {accounting.PLD_INTERVAL}; the exact Gaussian curve for full batches",
        "mechanisms": [asdict(mechanism) for mechanism in cost.plan.mechanisms],
    }


def _limits(plan: Plan, lineage: Spending) -> list[str]:
    sentences = [
        "The people named by the unit are protected; facts shared by many people are learnt and may be shown."
    ]
    if plan.mechanisms:
        sentences.append(
            "Accuracy was released with noise, on people held out by a keyed hash; small groups may differ."
        )
    else:
        sentences.append("Trained without privacy: this model may reveal the people in its training data.")
    if plan.mechanisms and lineage.no_bound:
        sentences.append(
            "Another job ran without privacy on these people: epsilon bounds this model alone, not what all reveal."
        )
    if plan.recipe.task == "classification":
        sentences.append(
            "Texts unlike the training data get a label too: set abstain_below, and let a person decide."
        )
    return sentences
