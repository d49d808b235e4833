"""What the upload page shows of uploads that were begun and not finished."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import Sum

from modeling.actions import files
from modeling.models import Upload, UploadPart
from tenants.models import Tenant

SHOWN = 20


@dataclass(frozen=True)
class UnfinishedUpload:
    """An upload that waits for the rest of its file."""

    upload: Upload
    received_bytes: int
    can_continue: bool  # it was begun on a page: its parts are numbered slices of one size


def unfinished_uploads(tenant: Tenant) -> list[UnfinishedUpload]:
    """The uploads under way, the newest first; inside the scope."""
    pending = list(files.pending_uploads(tenant).order_by("-id")[:SHOWN])
    parts = UploadPart.objects.of(tenant).filter(upload__in=pending).values("upload")
    sizes = dict(parts.annotate(total=Sum("size_bytes")).values_list("upload", "total"))
    return [UnfinishedUpload(one, int(sizes.get(one.pk, 0)), one.part_bytes is not None) for one in pending]
