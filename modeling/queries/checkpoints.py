"""The steps at which a job stored its place: read from its numbered events; only the newest is kept for resuming."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from modeling.models import Job, JobEvent
from tenants.models import Tenant


@dataclass(frozen=True)
class Stored:
    """One stored place: the event that told of it, epsilon spent by then, and the numbers released at that step.

    `is_kept`: its tensors still exist (sealed), so that a worker can go on from it.
    """

    seq: int
    at: datetime
    step: int
    epsilon: float | None
    released: dict[str, float]
    is_kept: bool


def checkpoints_of(tenant: Tenant, job: Job, *, before: int | None = None, most: int) -> list[Stored]:
    """Up to `most` of them, the newest first, older than event number `before`."""
    told = JobEvent.objects.of(tenant).filter(job=job, kind=JobEvent.Kind.METRICS, data__has_checkpoint=True)
    newest = told.order_by("-seq").values_list("seq", flat=True).first()
    rows = list((told.filter(seq__lt=before) if before is not None else told).order_by("-seq")[:most])
    released = _released(tenant, job)
    return [
        Stored(
            seq=row.seq,
            at=row.at,
            step=row.data["step"],
            epsilon=row.data.get("epsilon"),
            released=released.get(row.data["step"], {}),
            is_kept=row.seq == newest and job.checkpoint_id is not None,
        )
        for row in rows
    ]


def _released(tenant: Tenant, job: Job) -> dict[int, dict[str, float]]:
    """The noised and charged held-out numbers by step, under OpenAI's name for an accuracy on held-out rows."""
    rows: list[dict[str, Any]] = list(
        JobEvent.objects.of(tenant)
        .filter(job=job, kind=JobEvent.Kind.HELD_OUT)
        .values_list("data", flat=True)
    )
    return {
        row["step"]: {
            "full_valid_mean_token_accuracy": row["accuracy"],
            "noise_error": row["noise_error"],
        }
        for row in rows
    }
