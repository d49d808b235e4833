"""Tasks of uploads and files: what was never completed, and what was to be kept for a time only, goes."""

from __future__ import annotations

from celery import shared_task
from django.utils import timezone

from modeling.actions import expiring
from modeling.models import Upload
from tenants.models import Tenant
from tenants.scope import OPERATOR

EXPIRED_AT_ONCE = 200


@shared_task(name="modeling.expire_uploads")
def expire_uploads() -> None:
    """Destroy the parts of uploads that were never completed."""
    late = Upload.objects.everywhere().filter(status=Upload.Status.PENDING, expires_at__lte=timezone.now())
    for tenant_id, upload_id in late.values_list("tenant_id", "pk")[:EXPIRED_AT_ONCE]:
        expiring.expire_upload(tenant_id, upload_id)


@shared_task(name="modeling.expire_files")
def expire_files() -> int:
    """Delete every tenant's files whose time has come; returns how many."""
    ids = list(Tenant.objects.using(OPERATOR).values_list("pk", flat=True))
    return sum(expiring.expire_files(tenant_id) for tenant_id in ids)
