"""The task of batches: the next slice of the batch whose turn it is."""

from __future__ import annotations

from celery import shared_task

from modeling.actions import batch_running
from saas.lib import draining
from saas.lib.background import enqueue


@shared_task(name="modeling.run_batches")
def run_batches() -> None:
    """Run one slice and line up again behind whatever waits by now; nothing while as many run as may."""
    if batch_running.run_next(is_stopping=draining.is_asked):
        enqueue("modeling.run_batches")
