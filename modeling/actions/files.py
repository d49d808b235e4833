"""Files: keep an upload and have it inspected, give back what is kept as it was, delete."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from django.db.models import Q, Sum
from django.utils import timezone
from django.utils.translation import gettext as _

from billing import limits
from modeling.actions.datasets import destroy_segments, shred_dataset
from modeling.core.tables import ENCODINGS
from modeling.models import Batch, Dataset, DatasetVersion, File, Inspection, Job
from saas.lib import background
from saas.lib.errors import Conflict, Refusal
from tenants import audit, vault
from tenants.audit import Actor
from tenants.models import Tenant, VaultObject

NAME_CHARACTERS = 255
UPLOADABLE = (File.Purpose.FINE_TUNE, File.Purpose.USER_DATA, File.Purpose.BATCH)
_BLOCK_BYTES = 1 << 18


def stored_bytes(tenant: Tenant) -> int:
    """Bytes of the files a tenant keeps, as uploaded."""
    rows = File.objects.of(tenant).filter(deleted_at=None).exclude(status=File.Status.ERROR)
    return int(rows.aggregate(total=Sum("size_bytes"))["total"] or 0)


def add_file(
    tenant: Tenant, actor: Actor, *, name: str, purpose: str, writer: vault.VaultWriter, encoding: str = ""
) -> File:
    """Keep an upload that has streamed into `writer` and have it inspected; inside the tenant's scope.

    Raises Refusal (purpose, encoding, empty) or LimitReached (413, 402); then the caller aborts the writer.
    """
    tenant.refresh_from_db(
        fields=["state"]
    )  # an upload may take hours, and the tenant be suspended meanwhile
    limits.require_writable(tenant)
    check_purpose(purpose)
    if encoding and encoding not in ENCODINGS:
        raise Refusal(_("encoding is one of %(all)s.") % {"all": ", ".join(ENCODINGS)}, param="encoding")
    if writer.size_bytes == 0:
        raise Refusal(_("The file is empty."), param="file", code="empty_file")
    limits.require(tenant, "storage_bytes", stored_bytes(tenant) + writer.size_bytes)
    stored = writer.finish()
    is_kept = purpose in File.KEPT_AS_IS
    file = File.objects.of(tenant).create(
        name=name[-NAME_CHARACTERS:] or "file",
        purpose=purpose,
        encoding=encoding,
        size_bytes=stored.size_bytes,
        status=File.Status.PROCESSED if is_kept else File.Status.UPLOADED,
        object=stored,
        created_by=actor.label[:200],
    )
    audit.record(tenant, actor, "file.added", file, bytes=file.size_bytes, purpose=purpose)
    if not is_kept:
        Inspection.objects.of(tenant).create(file=file)
        background.enqueue("modeling.inspect_file", tenant_id=tenant.pk, file_id=file.pk)
    return file


def check_purpose(purpose: str) -> None:
    """Raise Refusal for what nobody may upload."""
    if purpose not in UPLOADABLE:
        raise Refusal(_("purpose is fine-tune, user_data or batch."), param="purpose", code="invalid_purpose")


def kept_content(stored: VaultObject) -> Iterator[bytes]:
    """A sealed file's bytes as they were uploaded or written."""
    with closing(vault.open(stored)) as source:
        while block := source.read(_BLOCK_BYTES):
            yield block


def delete_file(file: File, actor: Actor) -> None:
    """Delete a file and shred what was made of it; inside the scope. Raises Conflict while an open job needs it.

    What was spent on its people stays in the ledger. Handles are kept then (without keys), so that uploading the file
    again joins the same lineage.
    """
    tenant = Tenant.objects.get(pk=file.tenant_id)
    if Batch.objects.of(tenant).filter(file=file, state__in=Batch.OPEN).exists():
        raise Conflict(
            _("A batch still reads this file. Cancel the batch or wait for its end."), code="file_in_use"
        )
    needed = Q(file=file) | Q(catalogue_file=file)
    if Job.objects.of(tenant).filter(needed, state__in=Job.OPEN).exists():
        raise Conflict(
            _("A job still needs this file. Cancel the job or wait for its end."), code="file_in_use"
        )
    rows = File.objects.of(tenant).filter(pk=file.pk, deleted_at=None)
    if not rows.update(deleted_at=timezone.now(), object=None):
        return
    if file.object is not None:
        vault.destroy(file.object)
    Inspection.objects.of(tenant).filter(file=file).update(done_at=timezone.now())
    versions = DatasetVersion.objects.of(tenant).filter(file=file)
    for version in versions.exclude(segments=None):
        destroy_segments(tenant, version)
    datasets = list(versions.values_list("dataset_id", flat=True).distinct())
    versions.update(labels=[], errors=[])
    for dataset in Dataset.objects.of(tenant).filter(pk__in=datasets):
        shred_dataset(tenant, dataset)
    audit.record(tenant, actor, "file.deleted", file)
