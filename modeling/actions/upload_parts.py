"""Parts of an upload: kept once their checksum is right, sent again without harm, listed for whoever goes on."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import timedelta

from django.conf import settings
from django.db.models import Sum
from django.utils import timezone
from django.utils.translation import gettext as _

from modeling.actions.files import kept_content
from modeling.actions.uploading import held
from modeling.models import Upload, UploadPart
from modeling.models.uploads import OPEN_FOR
from saas.lib.errors import Refusal
from tenants import vault
from tenants.models import Tenant, VaultObject
from tenants.scope import TenantQuerySet

PART_BYTES_MOST = 64 << 20
PARTS_MOST = 10_000
# A client that lost the answer to a part and sends it once more may exceed what it announced by so much.
REPEATED_BYTES_MOST = 4 * PART_BYTES_MOST


@dataclass(frozen=True)
class SentPart:
    """A part that has streamed into `writer`, what was counted on the way, and what the sender says of it."""

    writer: vault.VaultWriter
    sha256: bytes
    number: int | None = None
    declared_sha256: str = ""  # hexadecimal, as is md5
    declared_md5: str = ""


@dataclass(frozen=True)
class KnownPart:
    """A part as it is listed; `sha256` in hexadecimal."""

    part: UploadPart
    sha256: str


def add_part(tenant: Tenant, upload: Upload, sent: SentPart) -> UploadPart:
    """Keep a part; inside the scope. Raises Refusal and Conflict, and then nothing of it is kept.

    A part that is there under the same number is replaced; the same bytes again change nothing.
    """
    row = held(tenant, upload)
    _check_sent(sent)
    parts = UploadPart.objects.of(tenant).filter(upload=row)
    former = parts.filter(number=sent.number).select_related("object").first() if sent.number else None
    key = _checksum_key(tenant)
    _keep_open(tenant, row)
    if former is not None and _checksum(former, key) == sent.sha256:
        return former
    _require_room(parts, row, former, sent, key)
    stored = sent.writer.finish()
    if sent.declared_md5 and not hmac.compare_digest(_md5(stored), sent.declared_md5.lower()):
        raise _other_checksum("MD5")
    part = former or UploadPart(tenant_id=tenant.pk, upload=row, number=sent.number)
    replaced = former.object if former is not None else None
    part.object, part.size_bytes = stored, stored.size_bytes
    part.checksum = vault.wrap(sent.sha256, key=key, bound=part.public_id)
    part.save()
    if replaced is not None:
        vault.destroy(replaced)
    return part


def known_parts(tenant: Tenant, upload: Upload) -> list[KnownPart]:
    """What has arrived, by number and then by time; inside the scope. Empty once the upload has ended."""
    key = _checksum_key(tenant)
    rows = UploadPart.objects.of(tenant).filter(upload=upload).exclude(object=None).order_by("number", "id")
    return [KnownPart(part, _checksum(part, key).hex()) for part in rows]


def ids_in_order(tenant: Tenant, upload: Upload) -> list[str]:
    """The numbered parts' ids by number, also of an upload that was completed with them; inside the scope."""
    rows = UploadPart.objects.of(tenant).filter(upload=upload).exclude(number=None)
    return list(rows.order_by("number").values_list("public_id", flat=True))


def _check_sent(sent: SentPart) -> None:
    if sent.number is not None and not 1 <= sent.number <= PARTS_MOST:
        raise Refusal(_("part_number is 1 to 10,000."), param="part_number")
    if sent.writer.size_bytes == 0:
        raise Refusal(_("The part is empty."), param="data", code="empty_part")
    if sent.declared_sha256 and not hmac.compare_digest(sent.sha256.hex(), sent.declared_sha256.lower()):
        raise _other_checksum("SHA-256")


def _other_checksum(kind: str) -> Refusal:
    message = _("The part arrived with another %(kind)s checksum. Send it again.") % {"kind": kind}
    return Refusal(message, param="data", code="checksum_mismatch")


def _require_room(
    parts: TenantQuerySet[UploadPart], upload: Upload, former: UploadPart | None, sent: SentPart, key: bytes
) -> None:
    size = _size(parts) + sent.writer.size_bytes - (former.size_bytes if former is not None else 0)
    if size > upload.size_bytes:
        size -= min(_repeated_bytes(parts, sent, key), REPEATED_BYTES_MOST)
    if size > upload.size_bytes:
        raise Refusal(
            _("The parts are larger than the %(bytes)s bytes that were announced.")
            % {"bytes": upload.size_bytes},
            param="data",
            code="upload_too_large",
        )
    if former is None and parts.count() >= PARTS_MOST:
        raise Refusal(_("An upload has at most 10,000 parts."), param="data", code="too_many_parts")


def _repeated_bytes(parts: TenantQuerySet[UploadPart], sent: SentPart, key: bytes) -> int:
    """Bytes of the parts without a number, this one included, that repeat another."""
    seen: set[bytes] = set()
    repeated = 0
    unnumbered = [(_checksum(part, key), part.size_bytes) for part in parts.filter(number=None)]
    for digest, size in [*unnumbered, *([(sent.sha256, sent.writer.size_bytes)] if not sent.number else [])]:
        repeated += size if digest in seen else 0
        seen.add(digest)
    return repeated


def _size(parts: TenantQuerySet[UploadPart]) -> int:
    return int(parts.aggregate(total=Sum("size_bytes"))["total"] or 0)


def _keep_open(tenant: Tenant, upload: Upload) -> None:
    """Each part extends the hour, up to a day after the beginning."""
    latest = upload.created_at + timedelta(hours=settings.UPLOAD_OPEN_HOURS)
    until = max(upload.expires_at, min(timezone.now() + OPEN_FOR, latest))
    Upload.objects.of(tenant).filter(pk=upload.pk).update(expires_at=until)


def _checksum_key(tenant: Tenant) -> bytes:
    return vault.derive(tenant, "part-checksum")


def _checksum(part: UploadPart, key: bytes) -> bytes:
    return vault.unwrap(bytes(part.checksum), key=key, bound=part.public_id) if part.checksum else b""


def _md5(stored: VaultObject) -> str:
    """Of a part that was sealed: few declare it, and it would double the cost of all the others."""
    digest = hashlib.md5(usedforsecurity=False)
    for block in kept_content(stored):
        digest.update(block)
    return digest.hexdigest()
