"""The state table of a job: which move a tenant may make from where, and where it leads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from types import MappingProxyType

from django.utils.translation import gettext as _

from modeling.models import Job
from saas.lib.errors import Conflict

State = Job.State
PAUSING, CANCELLING = "pausing", "cancelling"  # still running, until its current block is done


class Move(StrEnum):
    """What a tenant may do to a job; a worker's own moves are in running.py and endings.py."""

    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    PRIORITISE = "prioritise"


# Standing -> move -> standing. A move that is not here is refused with 409. A running job whose worker is gone is
# paused and cancelled at once, like a queued one.
TABLE: Mapping[str, Mapping[Move, str]] = MappingProxyType(
    {
        State.VALIDATING: {Move.CANCEL: State.CANCELLED, Move.PRIORITISE: State.VALIDATING},
        State.QUEUED: {
            Move.PAUSE: State.PAUSED,
            Move.CANCEL: State.CANCELLED,
            Move.PRIORITISE: State.QUEUED,
        },
        State.RUNNING: {Move.PAUSE: PAUSING, Move.CANCEL: CANCELLING},
        PAUSING: {Move.RESUME: State.RUNNING, Move.CANCEL: CANCELLING},
        CANCELLING: {Move.CANCEL: CANCELLING},
        State.PAUSED: {
            Move.RESUME: State.QUEUED,
            Move.CANCEL: State.CANCELLED,
            Move.PRIORITISE: State.PAUSED,
        },
        State.SUCCEEDED: {},
        State.FAILED: {},
        State.CANCELLED: {},
    }
)


def standing(job: Job) -> str:
    """The job's state, or `pausing` or `cancelling` while its worker has still to stop."""
    if job.state == State.RUNNING and job.cancel_requested:
        return CANCELLING
    return PAUSING if job.state == State.RUNNING and job.pause_requested else str(job.state)


def allowed(job: Job) -> frozenset[Move]:
    """The moves that the job's standing lets a tenant make."""
    return frozenset(TABLE[standing(job)])


def require(job: Job, move: Move) -> str:
    """The standing that the move leads to; raises Conflict (409) when the table has no such move."""
    found = TABLE[standing(job)].get(move)
    if found is not None:
        return found
    if job.is_ended:
        raise Conflict(_ENDED[move](), code="job_ended")
    raise Conflict(_REFUSED[move](), code=f"job_{standing(job)}")


_ENDED: Mapping[Move, Callable[[], str]] = {
    Move.PAUSE: lambda: _("This job has ended and cannot be paused."),
    Move.RESUME: lambda: _("This job has ended and cannot be resumed."),
    Move.CANCEL: lambda: _("This job has ended and cannot be cancelled."),
    Move.PRIORITISE: lambda: _("This job has ended: its priority means nothing any more."),
}
_REFUSED: Mapping[Move, Callable[[], str]] = {
    Move.PAUSE: lambda: _("Only a job that waits in the queue or runs can be paused."),
    Move.RESUME: lambda: _("Only a paused job can be resumed."),
    Move.CANCEL: lambda: _("This job cannot be cancelled now."),
    Move.PRIORITISE: lambda: _("Priority orders waiting jobs: this one already has its worker."),
}
