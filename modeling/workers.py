"""Worker processes say in a shared row that they live; the dispatcher counts them, operators read them."""

from __future__ import annotations

import logging
import os
import socket
import threading
import uuid
from datetime import timedelta

from django.db import DatabaseError, connection
from django.db.models.functions import Now

from modeling.models import Worker

logger = logging.getLogger(__name__)

BEAT_SECONDS = 10.0
SILENT = timedelta(hours=1)
_over = threading.Event()


def name_of(kind: str) -> str:
    """This process's name in the workers table."""
    return f"{kind}@{socket.gethostname()[:80]}:{os.getpid()}"


def beat(kind: str) -> None:
    """Say once that this process lives, by the database's clock."""
    Worker.objects.update_or_create(
        name=name_of(kind),
        defaults={
            "kind": kind,
            "host": socket.gethostname()[:120],
            "pid": os.getpid(),
            "heartbeat_at": Now(),
        },
    )


def keep_beating(kind: str) -> None:
    """Beat from a thread with a connection of its own, until the process ends."""
    _over.clear()
    threading.Thread(target=_beat_on, args=(kind,), name="heartbeat", daemon=True).start()


def _beat_on(kind: str) -> None:
    while not _over.is_set():
        try:
            beat(kind)
        except DatabaseError as error:
            logger.warning("heartbeat not written: %s", type(error).__name__)
            connection.close()
        _over.wait(BEAT_SECONDS)
    connection.close()


def withdraw(kind: str) -> None:
    """Remove this process's row in good order."""
    _over.set()
    Worker.objects.filter(name=name_of(kind)).delete()


def note_job(kind: str, job_id: uuid.UUID | None) -> None:
    """Say which job this process runs (an id that means nothing to an operator)."""
    Worker.objects.filter(name=name_of(kind)).update(job_id=job_id)


def forget_silent() -> None:
    """Delete the rows of workers that have been silent for an hour."""
    Worker.objects.filter(heartbeat_at__lt=Now() - SILENT).delete()
