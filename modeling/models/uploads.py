"""Upload, a file that arrives in parts, and UploadPart, one of them, sealed."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import ClassVar

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from modeling.models.datasets import File
from saas.lib.db import public_id
from tenants.scope import TenantForeignKey, TenantOwned

OPEN_FOR = timedelta(hours=1)  # from the beginning, and again from each part


def upload_id() -> str:
    """The public id of an upload."""
    return public_id("upload_")


def part_id() -> str:
    """The public id of a part."""
    return public_id("part_")


def open_until() -> datetime:
    """When an upload begun now expires."""
    return timezone.now() + OPEN_FOR


class Upload(TenantOwned):
    """What was announced: name, purpose and size in bytes; the parts follow until it is completed."""

    class Status(models.TextChoices):
        """OpenAI's states of an upload."""

        PENDING = "pending", _("pending")
        COMPLETED = "completed", _("completed")
        CANCELLED = "cancelled", _("cancelled")
        EXPIRED = "expired", _("expired")

    public_id = models.CharField(max_length=40, default=upload_id, editable=False)
    name = models.CharField(max_length=255)
    purpose = models.CharField(max_length=12, choices=File.Purpose.choices)
    mime_type = models.CharField(max_length=120, blank=True)
    size_bytes = models.BigIntegerField()
    part_bytes = models.BigIntegerField(null=True)  # as declared: the size of each part but the last
    keep_seconds = models.PositiveIntegerField(null=True)  # expires_after of the file that it becomes
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.PENDING)
    file = TenantForeignKey(File, null=True, on_delete=models.PROTECT)
    created_by = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(default=open_until)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["tenant", "public_id"], name="upload_public_id"),
        ]

    def __str__(self) -> str:
        return self.public_id


class UploadPart(TenantOwned):
    """A piece of an upload. Its object is handed to the file when the upload is completed, else destroyed."""

    upload = TenantForeignKey(Upload, on_delete=models.CASCADE)
    public_id = models.CharField(max_length=40, default=part_id, editable=False)
    object = TenantForeignKey("tenants.VaultObject", null=True, on_delete=models.PROTECT)
    size_bytes = models.BigIntegerField()
    number = models.PositiveIntegerField(null=True)  # part_number as declared: sent again, it replaces
    place = models.PositiveIntegerField(null=True)  # of a completed upload: its turn in the file, from 0
    checksum = models.BinaryField(
        default=bytes
    )  # SHA-256, wrapped: a plain hash would tell what the content is
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints: ClassVar[list[models.BaseConstraint]] = [
            models.UniqueConstraint(fields=["tenant", "public_id"], name="upload_part_public_id"),
            models.UniqueConstraint(fields=["tenant", "upload", "number"], name="upload_part_number"),
        ]
