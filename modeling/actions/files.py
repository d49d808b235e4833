"""Files: keep an upload and have it inspected, give back what is kept as it was, delete."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import connection
from django.db.models import Q, Sum
from django.utils import timezone
from django.utils.translation import gettext as _

from billing import limits
from modeling.actions import declarations, holds, personal_policy
from modeling.actions.datasets import destroy_segments, require_unchanging, shred_dataset
from modeling.models import Batch, Dataset, DatasetVersion, File, Inspection, Job, Upload
from saas.lib import background
from saas.lib.errors import Conflict, Refusal
from tenants import audit, vault
from tenants.audit import Actor
from tenants.models import Tenant, VaultObject
from tenants.scope import TenantQuerySet

NAME_CHARACTERS = 255
UPLOADABLE = (File.Purpose.FINE_TUNE, File.Purpose.USER_DATA, File.Purpose.BATCH)
_BLOCK_BYTES = 1 << 18


def stored_bytes(tenant: Tenant) -> int:
    """Bytes of the files a tenant keeps, as uploaded, and of versions made of others: each is whole in itself."""
    rows = File.objects.of(tenant).filter(deleted_at=None).exclude(status=File.Status.ERROR, object=None)
    versions = DatasetVersion.objects.of(tenant).exclude(segments=None)
    made = versions.filter(mode__in=DatasetVersion.CHAINED).aggregate(total=Sum("segments__size_bytes"))[
        "total"
    ]
    return int(rows.aggregate(total=Sum("size_bytes"))["total"] or 0) + int(made or 0)


def add_file(
    tenant: Tenant,
    actor: Actor,
    *,
    name: str,
    purpose: str,
    writer: vault.VaultWriter,
    reading: Mapping[str, str] | None = None,
    keep_seconds: int | None = None,
    personal_data: Mapping[str, Any] | str | None = None,
) -> File:
    """Keep an upload that has streamed into `writer` and have it inspected; inside the tenant's scope.

    `reading` is what the uploader declares: encoding, delimiter, quote, format; absent or "" is guessed. The file is
    deleted after `keep_seconds`, if given.
    Raises Refusal (purpose, reading, empty) or LimitReached (413, 402); then the caller aborts the writer.
    """
    announced = Announced(name, purpose, writer.size_bytes, reading, keep_seconds, personal_data)
    return keep_file(tenant, actor, announced, writer.finish)


@dataclass(frozen=True)
class Announced:
    """What an uploader says of a file, and its size in bytes."""

    name: str
    purpose: str
    size_bytes: int
    reading: Mapping[str, str] | None = None
    keep_seconds: int | None = None
    personal_data: Mapping[str, Any] | str | None = None  # see personal_policy.declared_policy
    announced_bytes: int = 0  # of its own upload, which is under way and has its room already


def one_at_a_time(tenant: Tenant) -> None:
    """Two requests at once may not both take what is left of the plan's storage; until the transaction ends."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"uploads:{tenant.pk}"])


def announced_bytes(tenant: Tenant) -> int:
    """Bytes of the uploads that are under way: room that is taken."""
    return int(pending_uploads(tenant).aggregate(total=Sum("size_bytes"))["total"] or 0)


def pending_uploads(tenant: Tenant) -> TenantQuerySet[Upload]:
    """The uploads that wait for parts; inside the scope."""
    return Upload.objects.of(tenant).filter(status=Upload.Status.PENDING, expires_at__gt=timezone.now())


def keep_file(tenant: Tenant, actor: Actor, asked: Announced, seal: Callable[[], VaultObject]) -> File:
    """Make a file of the object that `seal` makes once everything is checked; see add_file."""
    tenant.refresh_from_db(
        fields=["state"]
    )  # an upload may take hours, and the tenant be suspended meanwhile
    limits.require_writable(tenant)
    check_purpose(asked.purpose)
    declared = declarations.checked(asked.reading or {})
    personal_data = personal_policy.declared_policy(asked.personal_data)
    if asked.size_bytes == 0:
        raise Refusal(_("The file is empty."), param="file", code="empty_file")
    one_at_a_time(tenant)
    taken = stored_bytes(tenant) + announced_bytes(tenant) - asked.announced_bytes
    limits.require(tenant, "storage_bytes", taken + asked.size_bytes)
    is_kept = asked.purpose in File.KEPT_AS_IS
    now, keep = timezone.now(), asked.keep_seconds
    file = File.objects.of(tenant).create(
        name=asked.name[-NAME_CHARACTERS:] or "file",
        purpose=asked.purpose,
        reading=declared,
        personal_data=personal_data,
        size_bytes=asked.size_bytes,
        status=File.Status.PROCESSED if is_kept else File.Status.UPLOADED,
        object=seal(),
        created_by=actor.label[:200],
        expires_at=None if keep is None else now + timedelta(seconds=keep),
    )
    audit.record(tenant, actor, "file.added", file, bytes=file.size_bytes, purpose=asked.purpose)
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


def content_name(file: File, version: DatasetVersion | None) -> str:
    """What a download of a file's content is called: without the ending of what packed it; Parquet's becomes jsonl."""
    packed = version.schema.get("layout", {}).get("found", {}).get("packed", "") if version else ""
    stem, dot, suffix = file.name.rpartition(".")
    if packed == "parquet":
        return f"{stem if suffix.lower() in ('parquet', 'pq') and dot else file.name}.jsonl"
    if packed and dot and suffix.lower() in ("gz", "gzip", "zip"):
        has_ending = "." in stem
        return stem if has_ending else f"{stem}.{version.schema['format']}"  # type: ignore[union-attr]
    return file.name


def delete_file(file: File, actor: Actor) -> None:
    """Delete a file and shred what was made of it; inside the scope. Raises Conflict while an open job needs it.

    What was spent on its people stays in the ledger. Handles are kept then (without keys), so that uploading the file
    again joins the same lineage. Raises Conflict, too, where the dataset holds another file's rows: nothing goes that
    was not named, and delete_dataset names it.
    """
    tenant = Tenant.objects.get(pk=file.tenant_id)
    holds.require_free(tenant, file=file)
    if Batch.objects.of(tenant).filter(file=file, state__in=Batch.OPEN).exists():
        raise Conflict(
            _("A batch still reads this file. Cancel the batch or wait for its end."), code="file_in_use"
        )
    needed = Q(file=file) | Q(catalogue_file=file)
    if Job.objects.of(tenant).filter(needed, state__in=Job.OPEN).exists():
        raise Conflict(
            _("A job still needs this file. Cancel the job or wait for its end."), code="file_in_use"
        )
    made = DatasetVersion.objects.of(tenant).filter(file=file, dataset__deleted_at=None).values("dataset")
    datasets = list(Dataset.objects.of(tenant).filter(pk__in=made))
    for dataset in datasets:
        require_unchanging(tenant, dataset)
        _require_no_other(tenant, dataset, file)
    if not _end(tenant, file):
        return
    for dataset in datasets:
        _destroy(tenant, dataset)
    audit.record(tenant, actor, "file.deleted", file)


def delete_dataset(tenant: Tenant, actor: Actor, dataset: Dataset) -> None:
    """Shred a dataset with all its versions, and delete the files whose rows are in it; inside the scope.

    Raises Conflict while an open job, a version being made or a legal hold needs it.
    """
    holds.require_free(tenant, dataset=dataset)
    require_unchanging(tenant, dataset)
    needed = Q(dataset_version__dataset=dataset) | Q(catalogue_version__dataset=dataset)
    versions = DatasetVersion.objects.of(tenant).filter(dataset=dataset).exclude(file=None)
    files = list(File.objects.of(tenant).filter(pk__in=versions.values("file")).select_related("object"))
    waiting = Q(file__in=files) | Q(catalogue_file__in=files)
    if Job.objects.of(tenant).filter(needed | waiting, state__in=Job.OPEN).exists():
        raise Conflict(
            _("A job still needs this dataset. Cancel the job or wait for its end."), code="dataset_in_use"
        )
    _destroy(tenant, dataset)
    living = DatasetVersion.objects.of(tenant).filter(file__in=files, dataset__deleted_at=None)
    elsewhere = set(living.values_list("file_id", flat=True))
    for file in files:
        if file.pk not in elsewhere and _end(tenant, file):
            audit.record(tenant, actor, "file.deleted", file)
    audit.record(tenant, actor, "dataset.deleted", dataset)


def _require_no_other(tenant: Tenant, dataset: Dataset, file: File) -> None:
    others = DatasetVersion.objects.of(tenant).filter(dataset=dataset).exclude(file=None).exclude(file=file)
    if others.exists():
        raise Conflict(
            _(
                "The dataset %(id)s holds this file's rows together with those of other files. Delete the dataset, or"
                " remove people from it by a new version."
            )
            % {"id": dataset.public_id},
            code="file_in_versions",
        )


def _end(tenant: Tenant, file: File) -> bool:
    """Mark a file as deleted and destroy what is left of its raw content; False when somebody did before."""
    rows = File.objects.of(tenant).filter(pk=file.pk, deleted_at=None)
    if not rows.update(deleted_at=timezone.now(), object=None):
        return False
    if file.object is not None:
        vault.destroy(file.object)
    Inspection.objects.of(tenant).filter(file=file).update(done_at=timezone.now())
    return True


def _destroy(tenant: Tenant, dataset: Dataset) -> None:
    versions = DatasetVersion.objects.of(tenant).filter(dataset=dataset)
    for version in versions.exclude(segments=None):
        destroy_segments(tenant, version)
    versions.update(labels=[], errors=[])
    shred_dataset(tenant, dataset)
