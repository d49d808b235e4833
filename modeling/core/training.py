"""train(plan, data): a generator of events that ends in one Trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

from modeling.core import audit_canaries, heads, rank_launch, sweeps
from modeling.core.types import Checkpoint, Event, Plan, TrainingData

_NOTHING: Mapping[str, int] = MappingProxyType({})


def train(
    plan: Plan,
    data: TrainingData,
    *,
    models_dir: Path,
    resume: Checkpoint | None = None,
    spent: Mapping[str, int] = _NOTHING,
) -> Iterator[Event]:
    """Run a plan. The caller commits each Charge before it asks for the next event.

    `spent` are the compositions charged to earlier attempts, by mechanism name; a resumed run draws fresh noise
    and uses only what remains. Close the generator to stop.
    """
    head = rank_launch.spread(heads.load(plan.recipe.task, plan.method, base=plan.recipe.base), plan)
    if plan.recipe.sweep_runs:
        yield from sweeps.train(plan, data, models_dir=models_dir, resume=resume, spent=spent)
        return
    run = partial(audit_canaries.audited, head) if plan.recipe.audit else head.train
    yield from run(plan, data, models_dir=models_dir, resume=resume, spent=spent)
