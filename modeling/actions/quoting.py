"""The quote: what a job would cost in money, time and privacy, worked out like the job itself and then not started."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext as _

from billing.queries import plan_of
from modeling.actions.datasets import overlapping_datasets
from modeling.actions.resolving import Resolved, check_spec, find_file, guess, plan_for
from modeling.actions.rows import count_units_by
from modeling.actions.specs import JobSpec
from modeling.core.types import Plan
from modeling.models import File, PrivacyAccount
from modeling.packs import PACKS
from modeling.queries.privacy import Spending, spending_of
from saas.lib.errors import Conflict
from tenants.models import Tenant

# Fitted to whole runs of the demo jobs on 2 cores with bf16 instructions and short texts (about 15 tokens a row).
SECONDS_TO_START = 3.0
SECONDS_PER_ROW = {"head": 0.001, "lora": 0.0012, "ssr": 0.000006, "popularity": 0.000006}
SECONDS_PER_STEP = {"head": 0.018, "lora": 2.6, "ssr": 0.5, "popularity": 0.5, "final_hidden": 1.4}
SECONDS_PER_ITEM = 0.0012
SECONDS_PER_CONVERSATION = 0.11
CONVERSATIONS_READ = 1_224  # the chat head's public caps: 1,024 people train, 200 are held out


def quote(tenant: Tenant, spec: JobSpec) -> dict[str, Any]:
    """Price, seconds, epsilon after and expected quality; spends and writes nothing. Raises Refusal as a start does."""
    check_spec(tenant, spec)
    file = find_file(tenant, spec.training_file, param="training_file")
    catalogue = (
        find_file(tenant, spec.catalogue_file, param="catalogue_file") if spec.catalogue_file else None
    )
    if File.Status.UPLOADED in {one.status for one in (file, catalogue) if one is not None}:
        raise Conflict(_("This file is still being inspected; ask again in a moment."), code="file_not_ready")
    guessed = guess(tenant, spec, file, catalogue)
    units = count_units_by(tenant, guessed.version, guessed.unit)
    return _body(tenant, plan_for(spec, guessed, units))


def _body(tenant: Tenant, resolved: Resolved) -> dict[str, Any]:
    plan = resolved.plan
    seconds = estimate_seconds(plan)
    kind = "training_seconds"
    return {
        "object": "fine_tuning.quote",
        "task": plan.recipe.task,
        "model": plan.recipe.base,
        "method": plan.method,
        "columns": resolved.columns,
        "labels": list(plan.recipe.labels),
        "units": {"training": plan.shape.train_units, "held_out": plan.shape.held_out_units},
        "seconds": round(seconds),
        "price_cents": round(seconds * plan_of(tenant).price_of(kind), 2),
        "steps": plan.steps,
        "notes": list(plan.notes),
        "quality": {name: plan.settings[name] for name in _QUALITY if name in plan.settings},
        "privacy": _privacy(resolved, budget_before(tenant, resolved)),
    }


_QUALITY = ("expected_quality", "expected_low", "expected_high")


def estimate_seconds(plan: Plan) -> float:
    """How long a run should take on one worker, from its rows and steps."""
    if plan.method == "final_hidden":
        people = plan.shape.train_units + plan.shape.held_out_units
        per_row = SECONDS_PER_CONVERSATION * min(people, CONVERSATIONS_READ)
    else:
        per_row = SECONDS_PER_ROW[plan.method] * plan.shape.rows
    per_step = SECONDS_PER_STEP[plan.method] * plan.steps
    return SECONDS_TO_START + per_row + per_step + SECONDS_PER_ITEM * plan.shape.items


def budget_before(tenant: Tenant, resolved: Resolved) -> Spending:
    """The spending of the lineage that the job would join; an untouched budget when there is none yet."""
    dataset = resolved.version.dataset
    ids = {one.account_id for one in (dataset, *overlapping_datasets(dataset)) if one.account_id is not None}
    accounts = list(PrivacyAccount.objects.of(tenant).filter(pk__in=ids, merged_into=None).order_by("pk"))
    if not accounts:
        lifetime = PACKS[dataset.pack].lifetime_epsilon
        return Spending(
            lifetime, resolved.plan.delta, is_parallel=True, no_bound=False, mechanisms=(), jobs=0
        )
    spendings = [spending_of(tenant, account) for account in accounts]
    return Spending(
        lifetime_epsilon=min(one.lifetime_epsilon for one in spendings),
        delta=min(resolved.plan.delta, *(one.delta for one in spendings)),
        is_parallel=all(one.is_parallel for one in spendings),
        no_bound=any(one.no_bound for one in spendings),
        mechanisms=tuple(mechanism for one in spendings for mechanism in one.mechanisms),
        jobs=sum(one.jobs for one in spendings),
    )


def _privacy(resolved: Resolved, before: Spending) -> dict[str, Any]:
    plan, cost = resolved.plan, resolved.cost
    if not plan.mechanisms:
        return {"mode": "off", "reason": plan.recipe.privacy_off_reason}
    after = before.epsilon_after(plan.mechanisms)
    return {
        "mode": "on",
        "epsilon": cost.epsilon,
        "epsilon_replace_one": cost.epsilon_replace_one,
        "delta": plan.delta,
        "unit": plan.recipe.unit,
        "budget_lifetime": before.lifetime_epsilon,
        "budget_used": before.used,
        "budget_after": after,
        "fits": after <= before.lifetime_epsilon,
        "runs_like_this": before.runs_like(plan.mechanisms),
    }
