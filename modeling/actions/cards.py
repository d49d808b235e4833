"""The model card: filled from artefacts only (plan, ledger, released metrics), never from what somebody remembers."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from modeling.actions.accounts import ROW_UNIT
from modeling.actions.assessment import assess
from modeling.actions.privacy import Cost
from modeling.core import accounting, plain_words
from modeling.core.bases import BASES
from modeling.core.types import Plan, Trained
from modeling.models import Job, PrivacyAccount, PrivacyEntry
from modeling.packs import PACKS
from modeling.plans import load_plan
from modeling.queries.budget_changes import changes
from modeling.queries.privacy import Spending, root_of, spending_of
from tenants.models import Tenant

FORMAT = 2
CODE = ("torch", "opacus", "dp-accounting", "numpy", "safetensors")
SECTIONS = ("calibration", "fairness", "sweep", "audit")  # of Trained.report
SHARES = ("accuracy", "token_accuracy", "token_accuracy_before", "hit_rate_at_20")
CONFIDENCE = 0.95
_QUANTILE = 1.959964


@dataclass(frozen=True)
class Compute:
    """What a run took: seconds on its device over all attempts, and processor seconds of the last attempt."""

    seconds: float
    cpu_seconds: float | None = None


def build_card(
    tenant: Tenant,
    job: Job,
    trained: Trained,
    cost: Cost,
    *,
    name: str,
    sha256: str,
    compute: Compute,
) -> dict[str, Any]:
    """The card as JSON. `metrics` and `report` hold released (noised and charged) or public numbers only."""
    plan = load_plan(job.plan)
    account = _account(tenant, job)
    lineage = spending_of(tenant, account)
    card = {
        "format": FORMAT,
        "model": name,
        "tenant": tenant.slug,
        "task": job.task,
        "method": plan.method,
        "base": base_facts(job.base),
        "job": job.public_id,
        "artefact": {"sha256": sha256, "format": "safetensors"},
        "data": _data(job, plan),
        "privacy": _privacy(tenant, plan, cost) | {"lineage": lineage_facts(tenant, account, lineage)},
        "metrics": trained.metrics,
        "intervals": intervals(trained.metrics),
        "report": {section: trained.report[section] for section in SECTIONS if trained.report.get(section)},
        "training": {
            "steps": trained.steps,
            "steps_planned": plan.steps,
            "seconds": round(compute.seconds, 1),
            "cpu_seconds": None if compute.cpu_seconds is None else round(compute.cpu_seconds, 1),
            "device": str(plan.settings.get("device", "cpu")),
            "settings": dict(plan.settings),
        },
        "notes": list(plan.notes),
        "limits": _limits(plan, lineage, trained),
        "code": {package: version(package) for package in CODE},
    }
    return card | {"assessment": assess(card)}


def base_facts(base_id: str) -> dict[str, Any]:
    """The base model, its licence and where it is from; a table is learnt without one."""
    base = BASES.get(base_id)
    if base is None:
        return {
            "id": base_id,
            "name": base_id,
            "licence": "none: nothing is taken from elsewhere",
            "revision": "",
        }
    return {
        "id": base.id,
        "name": base.name,
        "licence": base.licence,
        "revision": base.revision,
        "source": base.source,
    }


def _data(job: Job, plan: Plan) -> dict[str, Any]:
    dataset_version = job.dataset_version
    assert dataset_version is not None  # a job that trained was admitted
    return {
        "dataset": dataset_version.dataset.public_id,
        "version": dataset_version.number,
        "content_hash": dataset_version.content_hash,
        "commitment": job.commitment,
        "rows": plan.shape.rows,
        "training_units": plan.shape.train_units,
        "held_out_units": plan.shape.held_out_units,
        "items": plan.shape.items,
        "columns": job.recipe.get("columns", {}),
        "labels": list(plan.recipe.labels),
        "features": [feature.name for feature in plan.recipe.features],
        "protected": [feature.name for feature in plan.recipe.protected],
        "declared_public": ["number of units", "number of rows", *_declared(plan)],
    }


_DECLARED = {"classification": ("label names",), "recommendation": ("catalogue",)}


def _declared(plan: Plan) -> list[str]:
    found = list(_DECLARED.get(plan.recipe.task, ()))
    if plan.recipe.features:
        found += ["column names", "bounds of numbers", "lists of categories"]
    if plan.recipe.target is not None:
        found.append("bounds of the number to predict")
    return found


def _account(tenant: Tenant, job: Job) -> PrivacyAccount:
    """The account of these people, who have spent over all jobs, this one included: the caller has settled it."""
    entry = PrivacyEntry.objects.of(tenant).filter(job=job).select_related("account").order_by("seq")[0]
    return root_of(tenant, entry.account)


def lineage_facts(tenant: Tenant, account: PrivacyAccount, lineage: Spending) -> dict[str, Any]:
    """What the people of these data have spent over all runs, their budget, and who raised it."""
    return {
        "epsilon_used": None if lineage.no_bound else lineage.used,
        "epsilon_lifetime": None if lineage.no_bound else lineage.lifetime_epsilon,
        "runs": lineage.jobs,
        "delta": lineage.delta,
        "no_bound": lineage.no_bound,
        "budget_changes": [
            {name: one[name] for name in ("at", "from", "to", "reason")} for one in changes(tenant, account)
        ],
    }


def since(tenant: Tenant, job: Job) -> dict[str, Any]:
    """What became of the lineage after the card was written: shown beside the card, and not part of what is signed."""
    account = _account(tenant, job)
    return {"lineage": lineage_facts(tenant, account, spending_of(tenant, account))}


def intervals(metrics: dict[str, float]) -> dict[str, dict[str, float]]:
    """95 % intervals of released numbers: the noise of the release, and for shares the chance of who was held out."""
    found = {}
    people = metrics.get("held_out_people", 0.0)
    for name, value in metrics.items():
        noise = metrics.get(f"{name}_noise_error", metrics.get("noise_error") if name in SHARES else None)
        if noise is None or name.endswith("noise_error"):
            continue
        sampling = max(value * (1 - value), 0.0) / people if name in SHARES and people else 0.0
        spread = _QUANTILE * math.sqrt(noise**2 + sampling)
        low, high = value - spread, value + spread
        if name in SHARES:
            low, high = max(low, 0.0), min(high, 1.0)
        found[name] = {"low": low, "high": high, "confidence": CONFIDENCE, "noise_error": noise}
    return found


def _privacy(tenant: Tenant, plan: Plan, cost: Cost) -> dict[str, Any]:
    unit = plan.recipe.unit or ROW_UNIT
    if not plan.mechanisms:
        return {
            "mode": "off",
            "reason": plan.recipe.privacy_off_reason,
            "unit": unit,
            "warning": "NO PRIVACY: this model was trained without a bound. It may reveal any person in its "
            "training data, and no statement about epsilon holds for it.",
        }
    return {
        "mode": "on",
        "unit": unit,
        "unit_means": "each row is one person" if not plan.recipe.unit else f"all rows with the same {unit}",
        "adjacency": "zero-out (one unit's records removed, their number public)",
        "epsilon": cost.epsilon,
        "epsilon_replace_one": cost.epsilon_replace_one,
        "epsilon_asked": plan.recipe.epsilon,
        "delta": plan.delta,
        "accountant": f"PLD, interval {accounting.PLD_INTERVAL}; the exact Gaussian curve for full batches; "
        "Renyi for private selection",
        "mechanisms": [asdict(mechanism) for mechanism in cost.plan.mechanisms],
        "plain_words": _plain_words(tenant, plan, cost),
    }


def _plain_words(tenant: Tenant, plan: Plan, cost: Cost) -> list[str]:
    """What epsilon means for one person, from the mechanisms that ran."""
    assert cost.epsilon is not None  # privacy is on
    return list(
        plain_words.sentences(
            cost.epsilon,
            plan.delta,
            PACKS[tenant.pack].wording.get("person", "person"),
            found=plain_words.odds(cost.plan.mechanisms),
            replace_one=cost.epsilon_replace_one,
        )
    )


def _limits(plan: Plan, lineage: Spending, trained: Trained) -> list[str]:
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
            if not plan.recipe.features
            else "Rows unlike the training data get a label too: let a person decide."
        )
    if any(group.get("is_small") for part in trained.report.get("fairness", ()) for group in part["groups"]):
        sentences.append(
            "Groups marked as small have so few held-out people that their accuracy is mostly noise."
        )
    return sentences
