"""The end of what was not meant to stay: uploads whose time is over, files at the time their uploader named."""

from __future__ import annotations

import logging
import uuid

from django.utils import timezone

from modeling.actions import uploading
from modeling.actions.files import delete_file
from modeling.models import File, Upload
from saas.lib.errors import Conflict
from tenants import audit
from tenants.models import Tenant
from tenants.scope import scope

logger = logging.getLogger(__name__)


def expire_upload(tenant_id: uuid.UUID, upload_id: uuid.UUID) -> None:
    """End an upload whose time is over and destroy its parts."""
    with scope(tenant_id):
        tenant = Tenant.objects.get(pk=tenant_id)
        late = Upload.objects.of(tenant).filter(
            pk=upload_id, status=Upload.Status.PENDING, expires_at__lte=timezone.now()
        )
        row = late.select_for_update().first()
        if row is not None:
            uploading.end(tenant, row, Upload.Status.EXPIRED)
            audit.record(tenant, audit.SYSTEM, "upload.expired", row)


def expire_files(tenant_id: uuid.UUID) -> int:
    """Delete the files whose time has come, each in a transaction of its own; returns how many.

    One that an open job or batch needs, or that a hold keeps, waits for the next run.
    """
    with scope(tenant_id):
        due = File.objects.of(tenant_id).filter(deleted_at=None, expires_at__lte=timezone.now())
        ids = list(due.values_list("pk", flat=True))
    return sum(_expire_file(tenant_id, file_id) for file_id in ids)


def _expire_file(tenant_id: uuid.UUID, file_id: uuid.UUID) -> bool:
    try:
        with scope(tenant_id):
            tenant = Tenant.objects.get(pk=tenant_id)
            files = File.objects.of(tenant).select_related("object").filter(pk=file_id, deleted_at=None)
            if (file := files.first()) is None:
                return False
            delete_file(file, audit.SYSTEM)
            audit.record(tenant, audit.SYSTEM, "file.expired", file)
            return True
    except Conflict as needed:
        logger.info("file %s is past its time and stays for now: %s", file_id, needed.code)
        return False
