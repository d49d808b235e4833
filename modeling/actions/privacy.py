"""The privacy ledger: reserve before the first gradient, charge block by block, close once; a crash refunds nothing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version as version_of
from typing import Any

from django.conf import settings
from django.utils.translation import gettext as _

from modeling.actions import accounts, chain
from modeling.core import accounting
from modeling.core.types import Mechanism, Plan
from modeling.models import DatasetVersion, Job, PrivacyAccount, PrivacyEntry
from modeling.plans import load_plan
from modeling.queries.privacy import Spending, spending_of
from saas.lib.errors import Refusal
from tenants.models import Tenant

ADJACENCY = "zero_out"
SAMPLERS = {True: "poisson over units, operating system entropy", False: "none: all units at every step"}
CODE = {
    "cloister": settings.VERSION,
    "dp-accounting": version_of("dp-accounting"),
    "opacus": version_of("opacus"),
}
NOISE = "gaussian, AES-256-CTR keyed by the operating system"


class BudgetExceeded(Refusal):
    """The lifetime budget of these people does not hold this job."""

    status = 402
    code = "privacy_budget"
    kind = "privacy_error"


class OverCharge(Exception):
    """A run asked for more compositions than its job had reserved: a bug, and the run must not go on."""


@dataclass(frozen=True)
class Cost:
    """What a plan costs if it runs to its end; worked out before any lock is taken."""

    plan: Plan
    epsilon: float | None
    epsilon_replace_one: float | None


def cost_of(plan: Plan) -> Cost:
    """Epsilon of the whole plan by PLD (or the exact curve), zero-out and replace-one."""
    if not plan.mechanisms:
        return Cost(plan, None, None)
    return Cost(
        plan,
        accounting.epsilon(plan.mechanisms, plan.delta),
        accounting.epsilon(plan.mechanisms, plan.delta, adjacency="replace_one"),
    )


def reserve(tenant: Tenant, job: Job, version: DatasetVersion, cost: Cost) -> PrivacyAccount:
    """Set the whole plan aside, under the row locks of ledger and account; raises BudgetExceeded and writes nothing.

    The filter adds Renyi vectors, so it holds for jobs chosen one after another in the light of earlier results.
    """
    head = chain.lock(tenant)
    chain.require_newest(head)
    account = accounts.account_for(tenant, version, cost.plan)
    facts = _facts(job, version, cost.plan)
    if not cost.plan.recipe.epsilon:
        chain.append(head, job, account, kind=PrivacyEntry.Kind.UNBOUNDED, facts=facts)
        account.no_bound = True
        account.save(update_fields=["no_bound"])
        return account
    spending = spending_of(tenant, account)
    _require_room(spending, cost.plan.mechanisms)
    for mechanism in cost.plan.mechanisms:
        chain.append(
            head, job, account, kind=PrivacyEntry.Kind.RESERVED,
            partition=mechanism.partition, mechanism=accounting.to_record(mechanism),
            rdp=accounting.rdp(mechanism), facts=facts,
            epsilon=cost.epsilon, epsilon_replace_one=cost.epsilon_replace_one,
        )  # fmt: skip
    return account


def _require_room(spending: Spending, mechanisms: Iterable[Mechanism]) -> None:
    after = spending.epsilon_after(mechanisms)
    if after <= spending.lifetime_epsilon:
        return
    numbers = {  # what was spent rounded up, what is left rounded down
        "used": math.ceil(100 * spending.used) / 100,
        "lifetime": spending.lifetime_epsilon,
        "after": math.ceil(100 * after) / 100,
        "left": math.floor(100 * spending.left) / 100,
    }
    sentence = _(
        "These people's privacy budget does not hold this job: %(used).2f of %(lifetime).2f epsilon are used or set"
        " aside, and this job would take it to %(after).2f. Ask for a smaller epsilon (%(left).2f is left), or"
        " train on other people. Deleting data does not give budget back."
    )
    raise BudgetExceeded(sentence % numbers, param="privacy.epsilon")


def _facts(job: Job, version: DatasetVersion, plan: Plan) -> dict[str, Any]:
    return {
        "dataset": version.dataset.public_id,
        "version": version.number,
        "content_hash": version.content_hash,
        "unit": plan.recipe.unit or accounts.ROW_UNIT,
        "adjacency": ADJACENCY,
        "delta": plan.delta,
        "task": plan.recipe.task,
        "method": plan.method,
        "job": job.public_id,
        "steps_planned": plan.steps,
        "sampler": SAMPLERS[any(one.sampling_rate < 1 for one in plan.mechanisms)],
        "noise": NOISE,
        "code": CODE,
        "reason": plan.recipe.privacy_off_reason,
    }


def charge(tenant: Tenant, job: Job, mechanism: str, *, first: int, count: int) -> dict[str, int]:
    """Move a block from reserved to spent; the caller commits before any gradient of it. Returns the counts spent.

    `job` is locked and fenced by the caller (running.owned). Replays draw on the same reservation; a block beyond it
    raises OverCharge.
    """
    planned = {one.name: one for one in load_plan(job.plan).mechanisms}
    spent = {**job.spent, mechanism: job.spent.get(mechanism, 0) + count}
    if mechanism not in planned or count < 1 or spent[mechanism] > planned[mechanism].count:
        raise OverCharge(f"{count} more of {mechanism!r} than was reserved")
    if planned[mechanism].repeats and count != planned[mechanism].count:
        raise OverCharge(f"{mechanism!r} is a selection: it is charged as a whole")
    block = replace(planned[mechanism], count=count)
    reserved = (
        PrivacyEntry.objects.of(tenant)
        .filter(job=job, kind=PrivacyEntry.Kind.RESERVED)
        .select_related("account")
    )
    chain.append(
        chain.lock(tenant), job, reserved[0].account, kind=PrivacyEntry.Kind.CHARGED,
        partition=block.partition, mechanism={**accounting.to_record(block), "first": first},
        rdp=accounting.rdp(block), facts={"epoch": job.epoch},
    )  # fmt: skip
    job.spent = spent
    return spent


def spent_mechanisms(plan: Plan, spent: Mapping[str, int]) -> list[Mechanism]:
    """The plan's mechanisms with the counts that were charged."""
    return [replace(one, count=spent[one.name]) for one in plan.mechanisms if spent.get(one.name)]


def cost_of_spent(job: Job) -> Cost:
    """What the charged blocks of a job cost: work this out before the transaction that closes it."""
    plan = load_plan(job.plan)
    used = replace(plan, mechanisms=tuple(spent_mechanisms(plan, job.spent)))
    cost = cost_of(used)
    if plan.mechanisms and not used.mechanisms:
        return Cost(used, 0.0, 0.0)
    return cost


def close(tenant: Tenant, job: Job, *, kind: str, cost: Cost) -> None:
    """Close the job's reservation once: what was charged stays charged, the rest is free again.

    Only the fenced owner calls this (the caller holds the job's row under its epoch): nobody can charge afterwards.
    """
    head = chain.lock(tenant)
    entries = PrivacyEntry.objects.of(tenant).filter(job=job)
    reserved = list(entries.filter(kind=PrivacyEntry.Kind.RESERVED).select_related("account"))
    if not reserved or entries.filter(kind__in=PrivacyEntry.CLOSING).exists():
        return
    counts: Counter[str] = Counter()
    for entry in entries.filter(kind=PrivacyEntry.Kind.CHARGED):
        counts[entry.mechanism["name"]] += entry.mechanism["count"]
    chain.append(
        head, job, reserved[0].account, kind=kind,
        mechanism={"counts": dict(counts)},
        facts={"epoch": job.epoch, "delta": job.plan.get("delta"), "adjacency": ADJACENCY},
        epsilon=cost.epsilon, epsilon_replace_one=cost.epsilon_replace_one,
    )  # fmt: skip
