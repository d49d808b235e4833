"""The quote: what a job would cost in money, time and privacy, worked out like the job itself and then not started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from django.utils.translation import gettext as _

from billing.queries import plan_of
from modeling.actions.datasets import overlapping_datasets
from modeling.actions.resolving import Guessed, Resolved, check_spec, find_file, guess, plan_for
from modeling.actions.rows import count_units_by
from modeling.actions.specs import JobSpec
from modeling.core import durations, plain_words
from modeling.core.types import Plan
from modeling.models import Dataset, File, Job, PrivacyAccount
from modeling.packs import PACKS
from modeling.plans import load_plan
from modeling.queries import paces, words
from modeling.queries.privacy import Spending, spending_of
from saas.lib.errors import Conflict, Refusal
from tenants.models import Tenant

LEVELS = (1.0, 3.0, 8.0)  # of the picture of quality against epsilon
RUNS_REMEMBERED = 10
QUALITY = ("expected_quality", "expected_low", "expected_high", "expected_of")


@dataclass(frozen=True)
class Asked:
    """A spec with everything guessed, before its plan: whether it can be private and useful is not known yet."""

    tenant: Tenant
    spec: JobSpec
    guessed: Guessed
    units: tuple[int, int]

    def resolved(self, epsilon: float | None = None) -> Resolved:
        """The plan, at another epsilon if one is given; raises Refusal as a start does."""
        spec = self.spec
        if epsilon is not None:
            spec = replace(spec, privacy=replace(spec.privacy, epsilon=epsilon))
        return plan_for(spec, self.guessed, self.units)


def ask(tenant: Tenant, spec: JobSpec) -> Asked:
    """What a quote starts from; spends and writes nothing. Raises Refusal."""
    check_spec(tenant, spec)
    file = find_file(tenant, spec.training_file, param="training_file")
    catalogue = (
        find_file(tenant, spec.catalogue_file, param="catalogue_file") if spec.catalogue_file else None
    )
    if File.Status.UPLOADED in {one.status for one in (file, catalogue) if one is not None}:
        raise Conflict(_("This file is still being inspected; ask again in a moment."), code="file_not_ready")
    guessed = guess(tenant, spec, file, catalogue)
    return Asked(tenant, spec, guessed, count_units_by(tenant, guessed.version, guessed.unit))


def quote(tenant: Tenant, spec: JobSpec) -> dict[str, Any]:
    """Price, seconds, epsilon after and expected quality; spends and writes nothing. Raises Refusal as a start does."""
    return body_of(ask(tenant, spec))


def body_of(asked: Asked) -> dict[str, Any]:
    """The quote's JSON; raises Refusal when the job could not be private or useful."""
    tenant, resolved = asked.tenant, asked.resolved()
    plan = resolved.plan
    seconds = seconds_of(tenant, plan, resolved.version.dataset)
    before = budget_before(tenant, resolved)
    return {
        "object": "fine_tuning.quote",
        "task": plan.recipe.task,
        "model": plan.recipe.base,
        "method": plan.method,
        "columns": resolved.columns,
        "labels": list(plan.recipe.labels),
        "units": {"training": plan.shape.train_units, "held_out": plan.shape.held_out_units},
        "seconds": round(seconds, 1),
        "price_cents": round(seconds * plan_of(tenant).price_of("training_seconds"), 2),
        "billed": billed_words(),
        "steps": plan.steps,
        "notes": list(plan.notes),
        "quality": quality_of(plan),
        "frontier": frontier(asked, plan, before),
        "privacy": _privacy(tenant, resolved, before),
    }


def billed_words() -> str:
    """What is billed, as a sentence."""
    return _(
        "Billed are the seconds that a worker spends on the run, as measured: not this estimate. Waiting is free, a"
        " failed run costs nothing, a cancelled one costs what it ran."
    )


def quality_of(plan: Plan) -> dict[str, Any]:
    """What the plan expects of the model, where it says so."""
    return {name: plan.settings[name] for name in QUALITY if name in plan.settings}


def seconds_of(tenant: Tenant, plan: Plan, dataset: Dataset) -> float:
    """How long the run should take here, learnt from finished runs of the deployment and, above all, on this data."""
    ended = Job.objects.of(tenant).filter(
        dataset_version__dataset=dataset, method=plan.method, state=Job.State.SUCCEEDED, attempts=1
    )
    own = [
        (durations.seconds(load_plan(job.plan)), job.training_seconds)
        for job in ended.order_by("-finished_at")[:RUNS_REMEMBERED]
        if job.training_seconds > 0
    ]
    return paces.estimate_seconds(plan, own=own)


def frontier(asked: Asked, plan: Plan | None, before: Spending) -> list[dict[str, Any]]:
    """Expected quality and budget after, at the usual levels of epsilon and the one asked for.

    Empty where a plan's noise takes long to work out (sampled batches) or nothing is known about quality before.
    """
    wanted = asked.spec.privacy.epsilon
    if plan is not None:
        wanted = plan.recipe.epsilon
        if wanted is None or "expected_low" not in plan.settings:
            return []
        if any(mechanism.sampling_rate < 1 for mechanism in plan.mechanisms):
            return []
    ceiling = PACKS[asked.guessed.version.dataset.pack].epsilon_ceiling
    levels = {level for level in LEVELS if level <= ceiling} | ({wanted} if wanted else set())
    return [_point(asked, level, before, is_asked=level == wanted) for level in sorted(levels)]


def _point(asked: Asked, level: float, before: Spending, *, is_asked: bool) -> dict[str, Any]:
    point: dict[str, Any] = {"epsilon": level, "asked": is_asked, "quality": {}, "refused": ""}
    try:
        plan = asked.resolved(level).plan
    except Refusal as refusal:
        return {**point, "refused": str(refusal.message), "budget_after": None, "fits": False}
    after = before.epsilon_after(plan.mechanisms)
    return {
        **point,
        "quality": quality_of(plan),
        "budget_after": after,
        "fits": after <= before.lifetime_epsilon,
    }


def budget_before(tenant: Tenant, resolved: Resolved) -> Spending:
    """The spending of the lineage that the job would join; an untouched budget when there is none yet."""
    return budget_of(tenant, resolved.version.dataset, resolved.plan.delta)


def budget_of(tenant: Tenant, dataset: Dataset, delta: float) -> Spending:
    """The same for a dataset and a delta."""
    ids = {one.account_id for one in (dataset, *overlapping_datasets(dataset)) if one.account_id is not None}
    accounts = list(PrivacyAccount.objects.of(tenant).filter(pk__in=ids, merged_into=None).order_by("pk"))
    if not accounts:
        lifetime = PACKS[dataset.pack].lifetime_epsilon
        return Spending(lifetime, delta, is_parallel=True, no_bound=False, mechanisms=(), jobs=0)
    spendings = [spending_of(tenant, account) for account in accounts]
    return Spending(
        lifetime_epsilon=min(one.lifetime_epsilon for one in spendings),
        delta=min(delta, *(one.delta for one in spendings)),
        is_parallel=all(one.is_parallel for one in spendings),
        no_bound=any(one.no_bound for one in spendings),
        mechanisms=tuple(mechanism for one in spendings for mechanism in one.mechanisms),
        jobs=sum(one.jobs for one in spendings),
    )


def _privacy(tenant: Tenant, resolved: Resolved, before: Spending) -> dict[str, Any]:
    plan, cost = resolved.plan, resolved.cost
    if not plan.mechanisms:
        return {"mode": "off", "reason": plan.recipe.privacy_off_reason}
    after = before.epsilon_after(plan.mechanisms)
    odds = plain_words.odds(plan.mechanisms)
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
        "most_often_right": {"in_or_out": odds.in_or_out, "which": odds.which},
        "words": list(
            plain_words.sentences(
                cost.epsilon or 0.0,
                plan.delta,
                words.person(tenant),
                found=odds,
                replace_one=cost.epsilon_replace_one,
            )
        ),
    }


TOO_FEW = frozenset({"too_few_units", "batch_too_small", "no_rows"})


def advice_of(asked: Asked, refusal: Refusal) -> Mapping[str, Any]:
    """A refusal for want of people as advice: what was said, and what other levels of epsilon would give."""
    before = budget_of(asked.tenant, asked.guessed.version.dataset, 1e-5)
    return {"advice": str(refusal.message), "frontier": frontier(asked, None, before)}
