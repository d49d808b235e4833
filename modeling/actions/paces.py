"""Learns from each finished run how fast this deployment is, so that the next quote says so."""

from __future__ import annotations

from modeling.core import durations
from modeling.models import Job, Pace
from modeling.plans import load_plan
from modeling.queries.paces import LOOKED_AT, device_of


def learn(job: Job, seconds: float) -> None:
    """Note what a run took that went through in one attempt; nothing about whose it was. Keeps the newest only."""
    if not job.plan or job.attempts != 1 or job.training_seconds or seconds <= 0:
        return
    plan = load_plan(job.plan)
    kind = {"method": plan.method, "device": device_of(plan)}
    planned, took = _rounded(durations.seconds(plan)), _rounded(seconds)
    Pace.objects.create(**kind, planned_seconds=planned, seconds=took)
    newest = Pace.objects.filter(**kind).order_by("-at").values_list("pk", flat=True)[:LOOKED_AT]
    Pace.objects.filter(**kind).exclude(pk__in=list(newest)).delete()


def _rounded(seconds: float) -> float:
    """Two figures are enough for a forecast, and say little about a run."""
    return float(f"{max(seconds, 0.01):.2g}")
