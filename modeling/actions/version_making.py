"""Makes the version that a change asks for: claimed under a lease, committed whole or not at all."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils.translation import gettext as _

from modeling.actions import accounts, chain, holds, quality
from modeling.actions.dataset_versions import has_jobs
from modeling.actions.datasets import destroy_segments, shred_dataset
from modeling.actions.personal_applying import Masking, found_in
from modeling.actions.segmenting import insert_unit_keys
from modeling.actions.version_rows import Joining
from modeling.actions.version_writing import VersionWriting, erased_handles, wrapped_keys
from modeling.core.segments import Place
from modeling.models import Dataset, DatasetVersion, File, VersionChange
from modeling.rows import key_ring, layout_of
from saas.lib.errors import Conflict, Refusal
from tenants import audit, vault
from tenants.models import Tenant
from tenants.scope import scope

logger = logging.getLogger(__name__)
LEASE = timedelta(minutes=3)
RENEW_SECONDS = 2.0
ATTEMPTS = 3
Mode = DatasetVersion.Mode
State = VersionChange.State
COUNTS = (
    "rows_added", "rows_removed", "rows_changed", "people_added", "people_removed", "people_changed", "people_erased",
)  # fmt: skip


class Lost(Exception):
    """Another worker has this change, or it was given up: nothing more may be written."""


@dataclass(frozen=True)
class Making:
    """One worker's right to make a version, until a later claim."""

    tenant: Tenant
    change: VersionChange

    def rows(self) -> Any:
        """The change's row as long as this claim is the newest; inside the tenant's scope."""
        mine = VersionChange.objects.of(self.tenant).filter(pk=self.change.pk, epoch=self.change.epoch)
        return mine.filter(state=State.RUNNING)


def make(tenant_id: uuid.UUID | str, change_id: uuid.UUID | str) -> None:
    """The task's body. Does nothing when another worker has the change or it has ended."""
    making = claim(tenant_id, change_id)
    if making is None:
        return
    try:
        _make(making)
    except Lost:
        logger.info("version change %s went to another worker", change_id)
    except (Refusal, vault.KeyDestroyed) as error:
        fail(making, error if isinstance(error, Refusal) else _gone())


def claim(tenant_id: uuid.UUID | str, change_id: uuid.UUID | str) -> Making | None:
    """Take a change for three minutes, renewed while rows pass; None when somebody has it, or nobody may any more."""
    with scope(tenant_id):
        tenant = Tenant.objects.get(pk=tenant_id)
        free = Q(state=State.QUEUED) | Q(state=State.RUNNING, lease_until__lt=Now())
        rows = VersionChange.objects.of(tenant).filter(free, pk=change_id)
        if not rows.update(state=State.RUNNING, lease_until=Now() + LEASE, epoch=F("epoch") + 1, rows_done=0):
            return None
        found = VersionChange.objects.of(tenant).select_related("dataset", "base__dataset", "file")
        making = Making(tenant, found.get(pk=change_id))
        if making.change.epoch > ATTEMPTS:
            fail(making, Refusal(_("This version could not be made. Please try it again."), code="failed"))
            return None
        return making


def fail(making: Making, refusal: Refusal) -> None:
    """End a change with a sentence; the number is free for the next one. Opens the tenant's scope."""
    with scope(making.tenant):
        error = refusal.body()["error"]
        if making.rows().update(state=State.FAILED, error=error, ended_at=Now(), lease_until=None):
            details = {"version": making.change.number, "mode": making.change.mode, "code": refusal.code}
            audit.record(
                making.tenant, audit.SYSTEM, "dataset.change_failed", making.change.dataset, **details
            )


def _gone() -> Refusal:
    return Refusal(_("The rows of this dataset were deleted meanwhile."), status=410, code="gone")


def _make(making: Making) -> None:
    tenant, change = making.tenant, making.change
    dataset, base = change.dataset, change.base
    with scope(tenant):
        source = _source_of(tenant, change)
        ring = key_ring(tenant.pk, dataset.pk)
        sink = vault.create(tenant, "segments")
    tokens = bytes(change.tokens)
    joining: Joining | Masking = Masking(tenant, base, tick=_Renewing(making)) if change.mode == Mode.MASK else Joining(
        tenant, base, source, mode=change.mode, key_column=change.key_column, tick=_Renewing(making),
        tokens=[tokens[at : at + 16] for at in range(0, len(tokens), 16)],
    )  # fmt: skip
    with sink:
        writing = VersionWriting(dataset, sink, Place(str(tenant.pk), str(dataset.pk), change.number), ring)
        writing.write(joining.groups())
        _require_difference(joining)
        with scope(tenant):
            _commit(making, joining, writing, sink, source)


class _Renewing:
    """Says how far it is, and keeps the lease, every two seconds; raises Lost when another worker has the change."""

    def __init__(self, making: Making) -> None:
        self._making = making
        self._last = time.monotonic()

    def __call__(self, rows: int) -> None:
        if time.monotonic() - self._last < RENEW_SECONDS:
            return
        self._last = time.monotonic()
        with scope(self._making.tenant):
            if not self._making.rows().update(rows_done=rows, lease_until=Now() + LEASE):
                raise Lost


def _source_of(tenant: Tenant, change: VersionChange) -> DatasetVersion | None:
    if change.file_id is None:
        return None
    versions = DatasetVersion.objects.of(tenant).filter(file_id=change.file_id, dataset__deleted_at=None)
    found = versions.exclude(segments=None).exclude(dataset=change.dataset).select_related("dataset", "file")
    source = found.order_by("number").last()
    if source is None:
        raise Refusal(_("The file was deleted meanwhile."), status=410, code="gone")
    return source


def _require_difference(joining: Joining | Masking) -> None:
    if joining.tally.rows == 0:
        raise Refusal(
            _("Nothing would be left. Delete the dataset instead, if that is meant."), code="empty_version"
        )
    if not any(joining.counts[name] for name in ("rows_added", "rows_removed", "rows_changed")):
        raise Refusal(_("Nothing would change: %(why)s") % {"why": _why_not(joining)}, code="nothing_changed")


def _why_not(joining: Joining | Masking) -> str:
    if joining.stay_erased:
        return _("everybody in the file was erased from this dataset earlier.")
    return _("none of these people is in the dataset, or their rows are the same.")


def _commit(
    making: Making,
    joining: Joining | Masking,
    writing: VersionWriting,
    sink: vault.VaultWriter,
    source: DatasetVersion | None,
) -> None:
    """One transaction: the object, the keys, the version, and the end of the file's own dataset."""
    tenant, change = making.tenant, making.change
    if source is not None:
        chain.lock(tenant)  # two lineages may become one
    dataset = Dataset.objects.of(tenant).select_for_update().get(pk=change.dataset_id)
    if not making.rows().update(
        state=State.SUCCEEDED, ended_at=Now(), lease_until=None, rows_done=F("rows_total")
    ):
        raise Lost
    _require_current(tenant, dataset, change, source)
    _insert_keys(dataset, writing.new_keys, source)
    version = _insert(tenant, dataset, change, joining, writing, sink, source)
    quality.ask(version)
    if source is not None:
        accounts.unite(tenant, dataset, source.dataset)
        _absorb(tenant, dataset, source.dataset)
    audit.record(
        tenant,
        audit.SYSTEM,
        "dataset.version",
        dataset,
        version=version.number,
        mode=version.mode,
        **_told(version),
    )


def _told(version: DatasetVersion) -> dict[str, int]:
    """What the audit log says of a change; how many rows hold personal data is private."""
    return {} if version.mode == Mode.MASK else dict(version.changes)


def _require_current(
    tenant: Tenant, dataset: Dataset, change: VersionChange, source: DatasetVersion | None
) -> None:
    """Nobody deleted or cut the rows while they were read."""
    newest = DatasetVersion.objects.of(tenant).filter(dataset=dataset).order_by("-number").first()
    if (
        dataset.deleted_at is not None
        or newest is None
        or newest.pk != change.base_id
        or newest.segments_id is None
    ):
        raise (
            _gone()
            if dataset.deleted_at is not None
            else Conflict(
                _("The dataset was changed meanwhile. Please try it again."), code="version_conflict"
            )
        )
    if source is not None:
        Dataset.objects.of(tenant).select_for_update().get(pk=source.dataset_id)
        File.objects.of(tenant).select_for_update().filter(pk__in=[source.file_id]).first()
        rows = DatasetVersion.objects.of(tenant).filter(pk=source.pk, file__deleted_at=None)
        if not rows.exclude(segments=None).exists():
            raise Refusal(_("The file was deleted meanwhile."), status=410, code="gone")


def _insert_keys(
    dataset: Dataset, keys: Iterable[tuple[bytes, bytes]], source: DatasetVersion | None
) -> None:
    """Keep the keys of new people. Whoever was erased from the file's own dataset, also while its rows were read, is
    erased here, too, unless this dataset has known the person itself."""
    erased = erased_handles(source.dataset) if source is not None else set()
    insert_unit_keys(dataset, ((handle, b"" if handle in erased else wrapped) for handle, wrapped in keys))
    unknown = sorted(erased - set(wrapped_keys(dataset, erased)))
    insert_unit_keys(dataset, [(handle, b"") for handle in unknown])


def _insert(
    tenant: Tenant,
    dataset: Dataset,
    change: VersionChange,
    joining: Joining | Masking,
    writing: VersionWriting,
    sink: vault.VaultWriter,
    source: DatasetVersion | None,
) -> DatasetVersion:
    base, tally = change.base, joining.tally
    joining.counts["people_erased"] = len(joining.stay_erased)
    is_source = source is not None and change.mode != Mode.REMOVE
    return DatasetVersion.objects.of(tenant).create(
        dataset=dataset,
        number=change.number,
        file=source.file if source is not None else None,
        rows=tally.rows,
        units=0 if dataset.is_catalogue else writing.groups,
        unit_column=base.unit_column,
        labels=tally.labels,
        schema=_schema(base, source if is_source else None, joining),
        errors=source.errors if source is not None and is_source else [],
        error_count=source.error_count if source is not None and is_source else 0,
        errors_by_rule=source.errors_by_rule if source is not None and is_source else {},
        segments=sink.finish(),
        content_hash=tally.rows_hash,
        rows_hash=tally.rows_hash,
        row_marks=tally.marks,
        personal_data=found_in(joining, base, source),
        parent=base,
        mode=change.mode,
        changes={name: joining.counts[name] for name in COUNTS},
        made_by=change.created_by,
    )


def _schema(
    base: DatasetVersion, source: DatasetVersion | None, joining: Joining | Masking
) -> dict[str, Any]:
    layout = layout_of(base)
    made = asdict(layout) | {"columns": list(layout.columns)}
    encoding = layout.encoding
    if source is not None and layout_of(source).encoding != encoding:
        encoding = "utf-8"  # the only one that surely has all characters of both
        made["found"] = {name: how for name, how in layout.found.items() if name != "encoding"}
    schema: dict[str, Any] = base.schema
    return schema | {
        "layout": made | {"encoding": encoding},
        "encoding": encoding,
        "tail": "",
        "columns": joining.tally.facts(),
        "lines": joining.tally.lines,
        "rows_without_unit": joining.tally.rows_without_unit,
        "label_column": base.dataset.columns.get("label", ""),
    }


def _absorb(tenant: Tenant, dataset: Dataset, source: Dataset) -> None:
    """End the file's own dataset, whose rows are in this one now; one that jobs have used, or that a hold keeps, stays
    beside it."""
    if has_jobs(tenant, source) or holds.is_held(tenant, dataset=source):
        return
    for version in DatasetVersion.objects.of(tenant).filter(dataset=source).exclude(segments=None):
        destroy_segments(tenant, version)
    shred_dataset(tenant, source)
    Dataset.objects.of(tenant).filter(pk=source.pk).update(merged_into=dataset)
