"""A job's events: numbered by the job's own counter in the event's own transaction, then announced."""

from __future__ import annotations

from typing import Any

from django.db import connection

from modeling.actions.running import Fenced, Lease
from modeling.actions.telling import NOTHING, Told
from modeling.models import Job, JobEvent
from saas.lib import live

_NEXT = "UPDATE modeling_job SET last_seq = last_seq + 1 WHERE tenant_id = %s AND id = %s{fence} RETURNING last_seq"
_FENCE = " AND epoch = %s AND state = 'running'"


def announce(
    job: Job,
    kind: str,
    message: str,
    *,
    lease: Lease | None = None,
    level: str = "info",
    data: Told = NOTHING,
) -> JobEvent:
    """Append an event and publish it after commit; with a lease only its owner can.

    `data` holds public or noised-and-charged facts only (privacy rule 9), and `message` is made of nothing else.
    """
    seq = _next_seq(job, lease)
    event = JobEvent.objects.of(job.tenant_id).create(
        job_id=job.pk, seq=seq, kind=kind, level=level, message=message[:500], data=dict(data.facts)
    )
    live.publish(topic_of(job.public_id), body_of(event))
    return event


def _next_seq(job: Job, lease: Lease | None) -> int:
    values: list[Any] = [job.tenant_id, job.pk]
    if lease is not None:
        values.append(lease.epoch)
    with connection.cursor() as cursor:
        cursor.execute(_NEXT.format(fence=_FENCE if lease is not None else ""), values)
        row = cursor.fetchone()
    if row is None:
        raise Fenced("the job is no longer this worker's")
    return int(row[0])


def topic_of(job_public_id: str) -> str:
    """The channel group of a job; made on the server from a row that the reader was allowed to see."""
    return live.group_for("job", job_public_id)


def body_of(event: JobEvent) -> dict[str, Any]:
    """What a WebSocket client gets: {seq, at, type, data}."""
    return {
        "seq": event.seq,
        "at": event.at.isoformat(),
        "type": event.kind,
        "data": {"message": event.message, "level": event.level, **event.data},
    }
