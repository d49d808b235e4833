"""Hands work to the background by task name, after commit; the message is a hint, the row is the truth."""

from __future__ import annotations

import logging
from typing import Any

from celery import current_app
from django.db import transaction
from kombu.exceptions import OperationalError

logger = logging.getLogger(__name__)


def enqueue(task: str, **ids: Any) -> None:
    """Send the named task with string ids once the current transaction commits.

    A broker that cannot be reached is logged and passed over: the sweeper re-sends hints for rows still waiting.
    """
    payload = {key: str(value) for key, value in ids.items()}
    transaction.on_commit(lambda: _send(task, payload))


def _send(task: str, payload: dict[str, str]) -> None:
    try:
        current_app.send_task(task, kwargs=payload, retry=False)
    except (OperationalError, OSError) as error:
        logger.warning("hint %s not sent (%s): the sweeper will send it", task, type(error).__name__)
