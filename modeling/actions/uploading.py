"""Uploads in parts: announce, add sealed parts, complete them into one file, cancel, expire."""

from __future__ import annotations

import hashlib
import hmac
import uuid
from contextlib import closing

from django.db import connection
from django.db.models import Sum
from django.utils import timezone
from django.utils.translation import gettext as _

from billing import limits
from modeling.actions.files import NAME_CHARACTERS, add_file, check_purpose, stored_bytes
from modeling.models import File, Upload, UploadPart
from saas.lib.errors import Conflict, NotFound, Refusal
from tenants import audit, vault
from tenants.audit import Actor
from tenants.models import Tenant
from tenants.scope import TenantQuerySet, scope

PART_BYTES_MOST = 64 << 20
PARTS_MOST = 10_000
_BLOCK_BYTES = 1 << 18
_MIME_CHARACTERS = 120


def begin(
    tenant: Tenant, actor: Actor, *, name: str, purpose: str, size_bytes: int, mime_type: str
) -> Upload:
    """Announce a file of so many bytes; inside the tenant's scope. Raises Refusal and LimitReached."""
    limits.require_writable(tenant)
    check_purpose(purpose)
    _one_at_a_time(tenant)
    limits.require(tenant, "storage_bytes", stored_bytes(tenant) + announced_bytes(tenant) + size_bytes)
    upload = Upload.objects.of(tenant).create(
        name=name[-NAME_CHARACTERS:],
        purpose=purpose,
        size_bytes=size_bytes,
        mime_type=mime_type[:_MIME_CHARACTERS],
        created_by=actor.label[:200],
    )
    audit.record(tenant, actor, "upload.created", upload, bytes=size_bytes, purpose=purpose)
    return upload


def _one_at_a_time(tenant: Tenant) -> None:
    """Two requests at once may not both announce what is left of the plan's storage."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"uploads:{tenant.pk}"])


def announced_bytes(tenant: Tenant) -> int:
    """Bytes of the uploads that are under way."""
    return int(_pending(tenant).aggregate(total=Sum("size_bytes"))["total"] or 0)


def _pending(tenant: Tenant) -> TenantQuerySet[Upload]:
    return Upload.objects.of(tenant).filter(status=Upload.Status.PENDING, expires_at__gt=timezone.now())


def find_upload(tenant: Tenant, public_id: str) -> Upload:
    """The tenant's upload; raises NotFound."""
    found = Upload.objects.of(tenant).select_related("file").filter(public_id=public_id).first()
    if found is None:
        raise NotFound(_("There is no such upload."), param="upload_id")
    return found


def require_pending(upload: Upload) -> None:
    """Raise Conflict when an upload has ended or its hour is over."""
    if upload.status != Upload.Status.PENDING:
        raise Conflict(
            _("This upload is %(status)s.") % {"status": upload.get_status_display()}, code="upload_ended"
        )
    if upload.expires_at <= timezone.now():
        raise Conflict(_("This upload has expired. Begin a new one."), code="upload_expired")


def _held(tenant: Tenant, upload: Upload) -> Upload:
    """The upload's row, locked until the transaction ends: parts and the end come one after another."""
    row = Upload.objects.of(tenant).select_for_update().get(pk=upload.pk)
    require_pending(row)
    return row


def add_part(tenant: Tenant, upload: Upload, writer: vault.VaultWriter) -> UploadPart:
    """Keep a part that has streamed into `writer`; inside the scope. Raises Refusal and Conflict."""
    row = _held(tenant, upload)
    if writer.size_bytes == 0:
        raise Refusal(_("The part is empty."), param="data", code="empty_part")
    parts = UploadPart.objects.of(tenant).filter(upload=row)
    there = parts.aggregate(total=Sum("size_bytes"))["total"] or 0
    if there + writer.size_bytes > row.size_bytes:
        raise Refusal(
            _("The parts are larger than the %(bytes)s bytes that were announced.")
            % {"bytes": row.size_bytes},
            param="data",
            code="upload_too_large",
        )
    if parts.count() >= PARTS_MOST:
        raise Refusal(_("An upload has at most 10,000 parts."), param="data", code="too_many_parts")
    stored = writer.finish()
    return UploadPart.objects.of(tenant).create(upload=row, object=stored, size_bytes=stored.size_bytes)


def complete(
    tenant: Tenant, actor: Actor, upload: Upload, part_ids: list[str], *, md5: str, encoding: str = ""
) -> File:
    """Stream the parts in this order into one file; outside of any scope, since it may take minutes.

    Raises Refusal when a part is missing or strange, or size or checksum is not as announced.
    """
    with scope(tenant):
        require_pending(upload)
        parts = _chosen(tenant, upload, part_ids)
    digest = hashlib.md5(usedforsecurity=False)
    with vault.create(tenant, "upload") as writer:
        for part in parts:
            _copy(part, writer, digest)
        if md5 and not hmac.compare_digest(md5.lower(), digest.hexdigest()):
            raise Refusal(_("The parts have another MD5 checksum."), param="md5", code="checksum_mismatch")
        with scope(tenant):
            row = _held(tenant, upload)
            file = add_file(
                tenant, actor, name=row.name, purpose=row.purpose, writer=writer, encoding=encoding
            )
            _end(tenant, row, Upload.Status.COMPLETED, file=file)
            audit.record(tenant, actor, "upload.completed", row, file=file.public_id, parts=len(parts))
            return file


def _chosen(tenant: Tenant, upload: Upload, part_ids: list[str]) -> list[UploadPart]:
    rows = UploadPart.objects.of(tenant).filter(upload=upload).select_related("object")
    known = {part.public_id: part for part in rows}
    if not part_ids or len(set(part_ids)) != len(part_ids) or any(one not in known for one in part_ids):
        raise Refusal(
            _("part_ids names this upload's parts, each once."), param="part_ids", code="invalid_parts"
        )
    parts = [known[one] for one in part_ids]
    size = sum(part.size_bytes for part in parts)
    if size != upload.size_bytes:
        raise Refusal(
            _("The parts have %(size)s bytes; %(announced)s were announced.")
            % {"size": size, "announced": upload.size_bytes},
            param="part_ids",
            code="size_mismatch",
        )
    return parts


def _copy(part: UploadPart, writer: vault.VaultWriter, digest: hashlib._Hash) -> None:
    """Decrypt a part block by block into the new object: nothing is in clear outside of memory."""
    if part.object is None:
        raise Conflict(_("This upload has ended."), code="upload_ended")
    with closing(vault.open(part.object)) as source:
        while block := source.read(_BLOCK_BYTES):
            digest.update(block)
            writer.write(block)


def cancel(tenant: Tenant, actor: Actor, upload: Upload) -> None:
    """End an upload and destroy its parts; inside the scope. Raises Conflict when it has ended."""
    row = _held(tenant, upload)
    _end(tenant, row, Upload.Status.CANCELLED)
    audit.record(tenant, actor, "upload.cancelled", row)


def _end(tenant: Tenant, upload: Upload, status: Upload.Status, *, file: File | None = None) -> None:
    Upload.objects.of(tenant).filter(pk=upload.pk).update(status=status, file=file)
    parts = UploadPart.objects.of(tenant).filter(upload=upload)
    for part in parts.exclude(object=None).select_related("object"):
        stored = part.object
        UploadPart.objects.of(tenant).filter(pk=part.pk).update(object=None)
        if stored is not None:
            vault.destroy(stored)


def expire(tenant_id: uuid.UUID, upload_id: uuid.UUID) -> None:
    """End an upload whose hour is over and destroy its parts."""
    with scope(tenant_id):
        tenant = Tenant.objects.get(pk=tenant_id)
        late = Upload.objects.of(tenant).filter(
            pk=upload_id, status=Upload.Status.PENDING, expires_at__lte=timezone.now()
        )
        row = late.select_for_update().first()
        if row is not None:
            _end(tenant, row, Upload.Status.EXPIRED)
            audit.record(tenant, audit.SYSTEM, "upload.expired", row)
