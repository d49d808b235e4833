"""Tasks of batches and uploads: the next slice of a batch, and the end of uploads whose hour is over."""

from __future__ import annotations

from celery import shared_task
from django.utils import timezone

from modeling.actions import batch_running, uploading
from modeling.models import Upload
from saas.lib import draining
from saas.lib.background import enqueue

EXPIRED_AT_ONCE = 200


@shared_task(name="modeling.run_batches")
def run_batches() -> None:
    """Run one slice and line up again behind whatever waits by now; nothing while as many run as may."""
    if batch_running.run_next(is_stopping=draining.is_asked):
        enqueue("modeling.run_batches")


@shared_task(name="modeling.expire_uploads")
def expire_uploads() -> None:
    """Destroy the parts of uploads that were never completed."""
    late = Upload.objects.everywhere().filter(status=Upload.Status.PENDING, expires_at__lte=timezone.now())
    for tenant_id, upload_id in late.values_list("tenant_id", "pk")[:EXPIRED_AT_ONCE]:
        uploading.expire(tenant_id, upload_id)
