"""Uploads in parts: announce, complete into one file without a copy, cancel; a completed one answers again."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _

from billing import limits
from modeling.actions.files import (
    NAME_CHARACTERS,
    Announced,
    announced_bytes,
    check_purpose,
    keep_file,
    kept_content,
    one_at_a_time,
    stored_bytes,
)
from modeling.models import File, Upload, UploadPart
from saas.lib.errors import Conflict, NotFound, Refusal
from tenants import audit, vault, vault_joined
from tenants.audit import Actor
from tenants.models import Tenant, VaultObject
from tenants.scope import scope

_MIME_CHARACTERS = 120


@dataclass(frozen=True)
class Whole:
    """What completing says of the file: checksums in hexadecimal ("" to leave one out), and how to read it."""

    md5: str = ""
    sha256: str = ""
    reading: Mapping[str, str] = field(default_factory=dict)
    personal_data: Mapping[str, Any] | str | None = None  # see personal_policy.declared_policy


def begin(
    tenant: Tenant,
    actor: Actor,
    asked: Announced,
    *,
    mime_type: str = "",
    part_bytes: int | None = None,
) -> Upload:
    """Announce a file of so many bytes; inside the tenant's scope. Raises Refusal and LimitReached."""
    limits.require_writable(tenant)
    check_purpose(asked.purpose)
    one_at_a_time(tenant)
    size = asked.size_bytes
    limits.require(tenant, "storage_bytes", stored_bytes(tenant) + announced_bytes(tenant) + size)
    upload = Upload.objects.of(tenant).create(
        name=asked.name[-NAME_CHARACTERS:],
        purpose=asked.purpose,
        size_bytes=size,
        mime_type=mime_type[:_MIME_CHARACTERS],
        part_bytes=part_bytes,
        keep_seconds=asked.keep_seconds,
        created_by=actor.label[:200],
    )
    audit.record(tenant, actor, "upload.created", upload, bytes=size, purpose=asked.purpose)
    return upload


def find_upload(tenant: Tenant, public_id: str) -> Upload:
    """The tenant's upload; raises NotFound."""
    found = Upload.objects.of(tenant).select_related("file").filter(public_id=public_id).first()
    if found is None:
        raise NotFound(_("There is no such upload."), param="upload_id")
    return found


def require_pending(upload: Upload) -> None:
    """Raise Conflict when an upload has ended or its time is over."""
    if upload.status != Upload.Status.PENDING:
        raise Conflict(
            _("This upload is %(status)s.") % {"status": upload.get_status_display()}, code="upload_ended"
        )
    if upload.expires_at <= timezone.now():
        raise Conflict(_("This upload has expired. Begin a new one."), code="upload_expired")


def held(tenant: Tenant, upload: Upload) -> Upload:
    """The pending upload's row, locked until the transaction ends: parts and the end come one after another."""
    row = Upload.objects.of(tenant).select_for_update().get(pk=upload.pk)
    require_pending(row)
    return row


def complete(tenant: Tenant, actor: Actor, upload: Upload, part_ids: Sequence[str], whole: Whole) -> File:
    """Make the parts, in this order, one file; outside of any scope.

    The parts become the file's content where they are: inspection reads them in order, and only a checksum makes this
    call read them too. Called again with the same parts, as after a lost answer, it gives the same file.
    Raises Refusal when a part is missing or strange, or size or checksum is not as announced.
    """
    with scope(tenant):
        if (made := _made_before(tenant, upload, part_ids)) is not None:
            return made
        require_pending(upload)
        parts = _chosen(tenant, upload, part_ids)
    _check_whole(parts, whole)
    if upload.purpose not in File.KEPT_AS_IS:
        return _complete(tenant, actor, upload, parts, whole, None)
    with vault.create(tenant, "upload") as copy:  # small, and read at any place by each slice of a batch
        for part in parts.values():
            for block in kept_content(part):
                copy.write(block)
        return _complete(tenant, actor, upload, parts, whole, copy)


def _complete(
    tenant: Tenant,
    actor: Actor,
    upload: Upload,
    parts: Mapping[str, VaultObject],
    whole: Whole,
    copy: vault.VaultWriter | None,
) -> File:
    """The one transaction that makes the file; raises Conflict when a part was replaced meanwhile."""
    with scope(tenant):
        row = (
            Upload.objects.of(tenant).select_for_update(of=("self",)).select_related("file").get(pk=upload.pk)
        )
        if (made := _made_before(tenant, row, list(parts))) is not None:
            return made
        require_pending(row)
        rows = UploadPart.objects.of(tenant).filter(upload=row)
        by_object = {part.object_id: part for part in rows}
        objects = list(parts.values())
        if any(one.pk not in by_object for one in objects):
            raise Conflict(
                _("A part was replaced meanwhile. Complete the upload again."), code="part_replaced"
            )
        asked = Announced(
            row.name, row.purpose, row.size_bytes, whole.reading, row.keep_seconds, whole.personal_data,
            announced_bytes=row.size_bytes,
        )  # fmt: skip
        seal = copy.finish if copy is not None else lambda: vault_joined.join(tenant, objects)
        file = keep_file(tenant, actor, asked, seal)
        chosen = [by_object[one.pk] for one in objects]
        for place, part in enumerate(chosen):
            part.place = place
            part.object = part.object if copy is not None else None  # the file owns it now
        rows.bulk_update(chosen, ["place", "object"], batch_size=1000)
        end(tenant, row, Upload.Status.COMPLETED, file=file)
        audit.record(tenant, actor, "upload.completed", row, file=file.public_id, parts=len(parts))
        return file


def _made_before(tenant: Tenant, upload: Upload, part_ids: Sequence[str]) -> File | None:
    """The file of an upload that was completed with these parts before."""
    placed = UploadPart.objects.of(tenant).filter(upload=upload).exclude(place=None).order_by("place")
    made: File | None = upload.file
    is_same = list(placed.values_list("public_id", flat=True)) == list(part_ids)
    return made if is_same else None


def _chosen(tenant: Tenant, upload: Upload, part_ids: Sequence[str]) -> dict[str, VaultObject]:
    rows = UploadPart.objects.of(tenant).filter(upload=upload).select_related("object")
    known = {part.public_id: part.object for part in rows if part.object is not None}
    if not part_ids or len(set(part_ids)) != len(part_ids) or any(one not in known for one in part_ids):
        raise Refusal(
            _("part_ids names this upload's parts, each once."), param="part_ids", code="invalid_parts"
        )
    parts = {one: known[one] for one in part_ids}
    size = sum(part.size_bytes for part in parts.values())
    if size != upload.size_bytes:
        raise Refusal(
            _("The parts have %(size)s bytes; %(announced)s were announced.")
            % {"size": size, "announced": upload.size_bytes},
            param="part_ids",
            code="size_mismatch",
        )
    return parts


def _check_whole(parts: Mapping[str, VaultObject], whole: Whole) -> None:
    """Read everything once if a checksum is given; nothing is in clear outside of memory."""
    wanted = {"md5": whole.md5, "sha256": whole.sha256}
    digests = {name: hashlib.new(name, usedforsecurity=False) for name, given in wanted.items() if given}
    if not digests:
        return
    for part in parts.values():
        for block in kept_content(part):
            for digest in digests.values():
                digest.update(block)
    for name, digest in digests.items():
        if not hmac.compare_digest(wanted[name].lower(), digest.hexdigest()):
            raise Refusal(
                _("The parts together have another %(kind)s checksum.") % {"kind": name.upper()},
                param=name,
                code="checksum_mismatch",
            )


def cancel(tenant: Tenant, actor: Actor, upload: Upload) -> None:
    """End an upload and destroy its parts; inside the scope. Raises Conflict when it has ended."""
    row = held(tenant, upload)
    end(tenant, row, Upload.Status.CANCELLED)
    audit.record(tenant, actor, "upload.cancelled", row)


def end(tenant: Tenant, upload: Upload, status: Upload.Status, *, file: File | None = None) -> None:
    """Set an upload's last state and destroy the parts that no file took; inside the scope, its row locked."""
    Upload.objects.of(tenant).filter(pk=upload.pk).update(status=status, file=file)
    parts = UploadPart.objects.of(tenant).filter(upload=upload)
    left = list(parts.exclude(object=None).select_related("object"))
    parts.update(object=None, checksum=b"")
    for part in left:
        if part.object is not None:
            vault.destroy(part.object)
