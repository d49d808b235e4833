"""Read a file again as its uploader says: a refused one from its sealed stream, a processed one from its rows."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext as _

from modeling.actions import declarations, holds
from modeling.actions.datasets import retire
from modeling.actions.segmenting import existing_ring, fresh_ring, insert_dataset_key
from modeling.core.columns import Guess, Guesses
from modeling.core.segments import KeyRing, Place
from modeling.core.tables import FileRefused, refuse
from modeling.models import Dataset, DatasetVersion, File, Inspection, Job, UnitKey, VersionChange
from modeling.rows import layout_of, rebuild_content
from saas.lib import background, live
from saas.lib.errors import Conflict, Refusal
from tenants import audit, vault
from tenants.audit import Actor
from tenants.models import Tenant
from tenants.scope import scope

KEPT_FOR = timedelta(hours=24)
HELD_LONGER = timedelta(hours=1)  # then it is asked again whether a legal hold still stands
Mode = DatasetVersion.Mode


class Blocks:
    """An iterator of bytes as a source that can be read once."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks

    def read(self, size: int) -> bytes:
        """The next block, whatever its size."""
        return next((block for block in self._blocks if block), b"")

    def close(self) -> None:
        """Nothing is held."""


@dataclass(frozen=True)
class Target:
    """Where an inspection writes: a new dataset, or the next version of the one that `former` belongs to."""

    dataset_id: uuid.UUID
    number: int
    ring: KeyRing
    known: dict[bytes, bytes]
    ring_key: bytes = b""
    former: DatasetVersion | None = None

    def place(self, tenant: Tenant) -> Place:
        """What the version's frames are bound to."""
        return Place(str(tenant.pk), str(self.dataset_id), self.number)

    def chosen(self, columns: Sequence[str]) -> Guesses | None:
        """The task and roles that the dataset has, when another reading finds the same columns; None to guess anew."""
        if self.former is None or set(layout_of(self.former).columns) != set(columns):
            return None
        dataset = self.former.dataset
        roles = {
            role: Guess(column, "kept", "Kept from the reading before.")
            for role, column in dataset.columns.items()
            if column in columns
        }
        return Guesses(dataset.task, roles)

    def keep(self, dataset: Dataset) -> None:
        """Insert the dataset and its key, or change the one there is; in the scope. Raises Conflict."""
        if self.former is None:
            dataset.save(force_insert=True)
            insert_dataset_key(dataset, self.ring_key)
            return
        tenant = Tenant.objects.get(pk=dataset.tenant_id)
        rows = Dataset.objects.of(tenant).select_for_update()
        require_readable(tenant, rows.get(pk=self.dataset_id))
        self._require_nobody_erased(tenant)
        rows.filter(pk=self.dataset_id).update(
            task=dataset.task, columns=dataset.columns, unit_column=dataset.unit_column, unit_fixed=False
        )

    def _require_nobody_erased(self, tenant: Tenant) -> None:
        """Rows read before an erasure would come back under other handles, whose keys are new. Raises Conflict."""
        gone = UnitKey.objects.of(tenant).filter(dataset_id=self.dataset_id, wrapped=b"").count()
        if gone != sum(not wrapped for wrapped in self.known.values()):
            raise Conflict(
                _("A person was erased meanwhile. Have the file read again."), code="person_erased"
            )

    def made(self, version: DatasetVersion) -> None:
        """Say what the version came from, and retire what it stands for."""
        if self.former is None:
            return
        tenant = Tenant.objects.get(pk=version.tenant_id)
        versions = DatasetVersion.objects.of(tenant).filter(dataset_id=self.dataset_id)
        versions.filter(pk=version.pk).update(parent=self.former, mode=Mode.READ)
        for old in versions.exclude(pk=version.pk).exclude(segments=None):
            retire(tenant, old)


def target(tenant: Tenant, file: File, dataset_id: uuid.UUID) -> Target:
    """The next version of the dataset that a file became, or a new dataset of this id; in the tenant's scope."""
    former = version_of(tenant, file)
    if former is None:
        ring, ring_key = fresh_ring(tenant, dataset_id)
        return Target(dataset_id, 1, ring, {}, ring_key)
    ring, known = existing_ring(former.dataset)
    return Target(former.dataset_id, former.number + 1, ring, known, former=former)


def version_of(tenant: Tenant, file: File) -> DatasetVersion | None:
    """The newest version of a file's dataset that still has its rows."""
    rows = DatasetVersion.objects.of(tenant).filter(file=file, dataset__deleted_at=None)
    rows = rows.exclude(mode__in=DatasetVersion.CHAINED).exclude(segments=None)
    return rows.select_related("dataset").order_by("-number").first()


def content_of(tenant: Tenant, file: File) -> Any:
    """A file's bytes to read once more: the sealed stream while it is there, else its rows; in the tenant's scope."""
    if file.object is not None:
        return vault.open(file.object)
    version = version_of(tenant, file)
    if version is None:
        raise refuse("gone", _("Nothing is left of this file to read. Please upload it again."))
    return Blocks(rebuild_content(version))


def read_again(tenant: Tenant, actor: Actor, file: File, declared: Mapping[str, str]) -> None:
    """Have a file inspected once more under other declarations; inside the scope.

    Raises Refusal (a declaration, nothing left to read: 410) and Conflict (under way, in use, the unit is fixed).
    """
    reading = declarations.checked(declared)
    row = File.objects.of(tenant).select_for_update().get(pk=file.pk)
    if row.purpose in File.KEPT_AS_IS:
        raise Refusal(_("Files of batches are kept as they are, and not read."), code="not_inspected")
    if row.status == File.Status.UPLOADED:
        raise Conflict(_("This file is still being inspected. Try again in a moment."), code="not_processed")
    if row.status == File.Status.PROCESSED:
        version = version_of(tenant, row)
        if version is None:
            raise _gone()
        require_readable(tenant, version.dataset)
    elif row.object_id is None:
        raise _gone()
    else:  # rows that cannot be used go with the stream
        holds.require_free(tenant, file=row)
    File.objects.of(tenant).filter(pk=row.pk).update(
        status=File.Status.UPLOADED, status_details="", reading=reading, encoding=""
    )
    Inspection.objects.of(tenant).filter(file=row).update(
        attempts=0, lease_until=None, done_at=None, kept_until=None
    )
    audit.record(tenant, actor, "file.read_again", row, **reading)
    background.enqueue("modeling.inspect_file", tenant_id=tenant.pk, file_id=row.pk)


def _gone() -> Refusal:
    return Refusal(
        _("Nothing is left of this file to read. Please upload it again."), status=410, code="gone"
    )


def require_readable(tenant: Tenant, dataset: Dataset) -> None:
    """Raise Conflict when another reading of a dataset would move rows that something rests on."""
    if dataset.unit_fixed:
        raise Conflict(
            _("A private job has run on this data: how it is read cannot change. Upload the file anew."),
            code="unit_fixed",
        )
    versions = DatasetVersion.objects.of(tenant).filter(dataset=dataset)
    if versions.filter(mode__in=DatasetVersion.CHAINED).exists():
        raise Conflict(
            _("Rows were added or removed since. Upload the file anew, and replace the rows by it."),
            code="version_chained",
        )
    making = VersionChange.objects.of(tenant).filter(dataset=dataset, state__in=VersionChange.OPEN)
    if making.exists():
        raise Conflict(
            _("Another version of this dataset is being made. Wait for its end."), code="version_in_progress"
        )
    used = Q(dataset_version__dataset=dataset) | Q(catalogue_version__dataset=dataset)
    files = versions.values("file_id")
    used |= Q(file_id__in=files) | Q(catalogue_file_id__in=files)
    if Job.objects.of(tenant).filter(used, state__in=Job.OPEN).exists():
        raise Conflict(
            _("A job still needs this data. Cancel the job or wait for its end."), code="file_in_use"
        )
    holds.require_free(tenant, dataset=dataset)


def stays(tenant: Tenant, file: File, details: str, refused: FileRefused | Conflict) -> bool:
    """A processed file that could not be read in another way stays as it was; False when there is nothing to stay."""
    version = version_of(tenant, file)
    if version is None:
        return False
    File.objects.of(tenant).filter(pk=file.pk).update(
        status=File.Status.PROCESSED,
        status_details=(_("It stays as it was. Read in that way: %(why)s") % {"why": details})[:500],
        reading=version.schema.get("reading", {}),
    )
    Inspection.objects.of(tenant).filter(file=file).update(done_at=timezone.now(), lease_until=None)
    audit.record(tenant, audit.SYSTEM, "file.reading_refused", file, rule=refused.code)
    live.publish(live.group_for("file", file.public_id), {"id": file.public_id, "status": "processed"})
    return True


def sweep_kept(tenant_id: uuid.UUID | str, file_id: uuid.UUID | str) -> None:
    """Destroy a refused file's sealed stream once its day is over."""
    with scope(tenant_id):
        tenant = Tenant.objects.get(pk=tenant_id)
        late = Inspection.objects.of(tenant).filter(file_id=file_id, kept_until__lte=timezone.now())
        file = File.objects.of(tenant).select_for_update().filter(pk=file_id).first()
        if file is not None and holds.is_held(tenant, file=file):
            late.update(kept_until=timezone.now() + HELD_LONGER)
            return
        if not late.update(kept_until=None) or file is None or file.status != File.Status.ERROR:
            return
        if file.object is not None:
            File.objects.of(tenant).filter(pk=file.pk).update(object=None)
            vault.destroy(file.object)
            audit.record(tenant, audit.SYSTEM, "file.stream_destroyed", file)
