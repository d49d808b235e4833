"""Datasets: cut again by another unit, find overlaps, shred a person or all of it."""

from __future__ import annotations

from uuid import UUID

from django.db import connection
from django.utils import timezone
from django.utils.translation import gettext as _

from modeling.actions import holds, quality
from modeling.actions.segmenting import Cut, SegmentWriting, existing_ring, insert_unit_keys
from modeling.core.columns import LABELS_MOST
from modeling.core.segments import Place
from modeling.models import Dataset, DatasetKey, DatasetVersion, Job, UnitKey, VersionChange, VersionDiff
from modeling.rows import UnitRow, layout_of, read_handles, read_rows, rebuild_content, rows_in_file_order
from modeling.units import handle_key, held_out_key, is_held_out, person_handle, shares_rows
from saas.lib.errors import Conflict, Refusal
from tenants import tombstones, vault
from tenants.models import Tenant

__all__ = [
    "UnitRow",
    "destroy_segments",
    "distinct_labels",
    "held_out_key",
    "is_held_out",
    "overlapping_datasets",
    "read_handles",
    "read_rows",
    "rebuild_content",
    "resegment",
    "retire",
    "sharing_rows",
    "shred_dataset",
    "shred_unit",
]

_SHARED_PEOPLE = """
SELECT DISTINCT theirs.dataset_id
FROM modeling_unitkey ours
JOIN modeling_unitkey theirs ON theirs.tenant_id = ours.tenant_id AND theirs.handle = ours.handle
WHERE ours.dataset_id = %s AND theirs.dataset_id <> %s AND ours.handle <> %s
"""


def resegment(version: DatasetVersion, unit_column: str) -> DatasetVersion:
    """Cut a dataset by another unit ("": each row is one person) into its next version; inside the tenant's scope.

    The former cut is destroyed unless an open job reads it, so that a person's rows lie under one key only. Raises
    Refusal when a private job fixed the unit, or the column does not exist.
    """
    tenant = Tenant.objects.get(pk=version.tenant_id)
    dataset = Dataset.objects.of(tenant).select_for_update().get(pk=version.dataset_id)
    versions = DatasetVersion.objects.of(tenant).filter(dataset=dataset).select_related("dataset")
    if version.unit_column == unit_column and version.segments_id is not None:
        return version
    same = versions.filter(parent=version, mode=DatasetVersion.Mode.CUT, unit_column=unit_column)
    if (found := same.exclude(segments=None).order_by("-number").first()) is not None:
        return found
    columns = layout_of(version).columns
    _require_cuttable(dataset, unit_column, columns)
    newest = versions.order_by("-number").values_list("number", flat=True)[0]
    _require_newest(tenant, version, newest)
    former = list(versions.exclude(segments=None))
    if any(old.pk != version.pk for old in former):  # with them go rows that this version does not have
        holds.require_free(tenant, dataset=dataset)
    made = _cut_again(tenant, dataset, version, unit_column, number=newest + 1)
    Dataset.objects.of(tenant).filter(pk=dataset.pk).update(
        unit_column=unit_column, columns={**dataset.columns, "unit": unit_column}
    )
    for old in former:
        retire(tenant, old)
    quality.ask(made)
    return versions.select_related("dataset").get(pk=made.pk)


def _cut_again(
    tenant: Tenant, dataset: Dataset, version: DatasetVersion, unit_column: str, *, number: int
) -> DatasetVersion:
    """Seal a version's rows anew by another unit under the dataset's own keys, and insert the row of it."""
    columns = layout_of(version).columns
    ring, known = existing_ring(dataset)
    label = dataset.columns.get("label", "")
    cut = Cut(
        unit_at=columns.index(unit_column) if unit_column else None,
        is_catalogue=False,
        label_at=columns.index(label) if label in columns else None,
    )
    with vault.create(tenant, "segments") as sink:
        place = Place(str(tenant.pk), str(dataset.pk), number)
        written = SegmentWriting(tenant, sink, place, ring, known).write(rows_in_file_order(version), cut)
        insert_unit_keys(dataset, written.new_keys)
        segments = sink.finish()
    return DatasetVersion.objects.of(tenant).create(
        dataset=dataset,
        number=number,
        file=version.file,
        rows=written.rows,
        units=written.units,
        unit_column=unit_column,
        labels=written.labels,
        schema=version.schema
        | {
            "is_grouped": bool(unit_column),
            "rows_without_unit": written.rows_without_unit,
            "label_column": label,
        },
        errors=version.errors,
        error_count=version.error_count,
        errors_by_rule=version.errors_by_rule,
        segments=segments,
        content_hash=version.content_hash,
        rows_hash=version.rows_hash,
        row_marks=written.marks,
        parent=version,
        mode=DatasetVersion.Mode.CUT,
    )


def _require_cuttable(dataset: Dataset, unit_column: str, columns: tuple[str, ...]) -> None:
    if dataset.unit_fixed:
        raise Conflict(
            _("Whose record a row is was fixed by this dataset's first private job, and cannot change."),
            param="privacy.unit",
            code="unit_fixed",
        )
    if dataset.is_catalogue:
        raise Refusal(
            _("A catalogue holds things, not people: it has no unit of privacy."), param="privacy.unit"
        )
    if unit_column and unit_column not in columns:
        raise Refusal(_("The file has no such column."), param="privacy.unit", code="column_not_found")


def _require_newest(tenant: Tenant, version: DatasetVersion, newest: int) -> None:
    """An older version would come back as the newest one; and nobody else may be making the next one."""
    if version.number != newest:
        raise Conflict(
            _("Only the newest version can be cut by another unit."), param="privacy.unit", code="version_cut"
        )
    require_idle(tenant, version.dataset)


def busy() -> Conflict:
    """Somebody else is making a version."""
    return Conflict(
        _("Another version of this dataset is being made. Wait for its end."), code="version_in_progress"
    )


def require_idle(tenant: Tenant, dataset: Dataset) -> None:
    """Raise Conflict while a version of this dataset is being made."""
    if VersionChange.objects.of(tenant).filter(dataset=dataset, state__in=VersionChange.OPEN).exists():
        raise busy()


def require_unchanging(tenant: Tenant, dataset: Dataset) -> None:
    """Raise Conflict while a version of this dataset, or of its rows in another, is being made."""
    require_idle(tenant, dataset)
    files = DatasetVersion.objects.of(tenant).filter(dataset=dataset).exclude(file=None).values("file")
    if VersionChange.objects.of(tenant).filter(state__in=VersionChange.OPEN, file__in=files).exists():
        raise busy()


def retire(tenant: Tenant, version: DatasetVersion) -> None:
    """Destroy a former cut's segments, and the keys only it used, unless an open job still reads them."""
    if Job.objects.of(tenant).filter(dataset_version=version, state__in=Job.OPEN).exists():
        return
    handles = list(dict.fromkeys(read_handles(version)))
    destroy_segments(tenant, version)
    if Dataset.objects.of(tenant).filter(pk=version.dataset_id).exclude(account=None).exists():
        return  # something ran on these people: their handles tell when another file has them
    others = DatasetVersion.objects.of(tenant).filter(dataset_id=version.dataset_id).exclude(segments=None)
    used = {handle for other in others for handle in read_handles(other)}
    gone = [handle for handle in handles if handle not in used]
    keys = UnitKey.objects.of(tenant).filter(dataset_id=version.dataset_id)
    for start in range(0, len(gone), 5_000):
        keys.filter(handle__in=gone[start : start + 5_000]).delete()


def destroy_segments(tenant: Tenant, version: DatasetVersion) -> None:
    quality.forget(version)
    DatasetVersion.objects.of(tenant).filter(pk=version.pk).update(segments=None)
    if version.segments is not None:
        vault.destroy(version.segments)


def distinct_labels(version: DatasetVersion, column: str) -> list[str]:
    """The different non-empty values of a column, sorted; raises Refusal when there are more than a label set has."""
    found: set[str] = set()
    for row in read_rows(version, columns=[column]):
        value = row.values.get(column, "")
        if value != "":
            found.add(value if isinstance(value, str) else str(value))
        if len(found) > LABELS_MOST:
            raise Refusal(
                _("The label column has more than %(most)s different values.") % {"most": LABELS_MOST},
                param="columns.label",
                code="too_many_labels",
            )
    return sorted(found)


def overlapping_datasets(dataset: Dataset) -> list[Dataset]:
    """The tenant's other datasets that share people with this one: the same handles, or the same rows in another cut.

    Deleted datasets count as long as something was spent on them. Inside the tenant's scope.
    """
    if dataset.is_catalogue:
        return []
    tenant_id = dataset.tenant_id
    tenant = Tenant.objects.get(pk=tenant_id)
    unnamed = person_handle(handle_key(tenant), "")
    with connection.cursor() as cursor:
        cursor.execute(_SHARED_PEOPLE, [dataset.pk, dataset.pk, unnamed])
        shared = {row[0] for row in cursor.fetchall()}
    shared |= sharing_rows(dataset)
    return list(Dataset.objects.of(tenant_id).filter(pk__in=shared, is_catalogue=False).order_by("id"))


def sharing_rows(dataset: Dataset) -> set[UUID]:
    """The ids of the other datasets that hold the same rows as this one, whoever is said to own them."""
    versions = DatasetVersion.objects.of(dataset.tenant_id)
    ours = [bytes(marks) for marks in versions.filter(dataset=dataset).values_list("row_marks", flat=True)]
    others = versions.exclude(dataset=dataset).exclude(dataset__is_catalogue=True)
    found: set[UUID] = set()
    for other_id, marks in others.values_list("dataset_id", "row_marks").iterator(chunk_size=20):
        if other_id not in found and any(shares_rows(mine, bytes(marks)) for mine in ours):
            found.add(other_id)
    return found


def shred_unit(dataset: Dataset, handle: bytes) -> bool:
    """Destroy one unit's key: its rows are unreadable in every version, all others stay. False when unknown."""
    rows = UnitKey.objects.of(dataset.tenant_id).filter(dataset=dataset, handle=handle).exclude(wrapped=b"")
    if not rows.update(wrapped=b""):
        return False
    tombstones.note(dataset.tenant_id, "unit", f"{dataset.pk}:{handle.hex()}")
    return True


def shred_dataset(tenant: Tenant, dataset: Dataset) -> None:
    keys = UnitKey.objects.of(tenant).filter(dataset=dataset)
    if dataset.account_id is None:
        keys.delete()
        DatasetVersion.objects.of(tenant).filter(dataset=dataset).update(row_marks=b"")
    else:
        keys.update(wrapped=b"")
    DatasetKey.objects.of(tenant).filter(dataset=dataset).delete()
    Dataset.objects.of(tenant).filter(pk=dataset.pk).update(deleted_at=timezone.now())
    VersionDiff.objects.of(tenant).filter(dataset=dataset).delete()
    tombstones.note(tenant, "dataset", str(dataset.pk))
