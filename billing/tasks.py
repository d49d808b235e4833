"""Background work of billing; every task can be repeated without harm."""

from __future__ import annotations

from celery import shared_task

from billing import actions
from saas.lib.errors import Refusal


@shared_task(name="billing.process_events", throws=(Refusal,))
def process_events() -> int:
    """Apply stored Stripe events."""
    return actions.process_events()


@shared_task(name="billing.report_usage", throws=(Refusal,))
def report_usage() -> int:
    """Report metered usage to Stripe."""
    return actions.report_usage()


@shared_task(name="billing.measure_storage")
def measure_storage() -> int:
    """Record stored byte-hours."""
    return actions.measure_storage()


@shared_task(name="billing.reconcile", throws=(Refusal,))
def reconcile() -> int:
    """Read every subscription again."""
    return actions.reconcile()
