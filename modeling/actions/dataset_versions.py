"""The next version of a dataset: rows added, people's rows replaced, people removed; asked for here, made by a worker.

Files:         rows of a file that was uploaded and inspected; its own dataset goes into this one.
Who is meant:  by the unit column. Where each row is one person, and in a catalogue, replacing and removing need a key
               column whose values name the rows: line numbers move, and would put one person's row in another's place.
Erased people: stay erased, whatever file brings their rows again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from billing import limits
from modeling.actions import holds
from modeling.actions.datasets import busy, require_idle, require_unchanging
from modeling.actions.files import stored_bytes
from modeling.models import Dataset, DatasetVersion, File, Job, VersionChange
from modeling.rows import layout_of
from modeling.units import handle_key, person_handle
from saas.lib.background import enqueue
from saas.lib.errors import Conflict, NotFound, Refusal
from tenants import audit
from tenants.audit import Actor
from tenants.models import Tenant, VaultObject

Mode = DatasetVersion.Mode
UNITS_MOST = 10_000
NAMES_SHOWN = 20


@dataclass(frozen=True)
class Asked:
    """What somebody wants of the next version."""

    mode: str
    file: str = ""  # public id
    units: Sequence[str] = ()  # whom to remove
    key: str = ""  # the column that names a row, where none names a person


def start(tenant: Tenant, actor: Actor, dataset: Dataset, asked: Asked) -> VersionChange:
    """Ask for the next version; inside the tenant's scope. A worker makes it.

    Raises Conflict while another one is being made, Refusal for a file or people that do not fit, LimitReached (413).
    """
    limits.require_writable(tenant)
    dataset = Dataset.objects.of(tenant).select_for_update().get(pk=dataset.pk)
    base = newest_version(tenant, dataset)
    require_idle(tenant, dataset)
    if asked.mode not in DatasetVersion.CHAINED:
        raise Refusal(_("mode is append, replace, remove or mask."), param="mode", code="invalid_mode")
    if base.segments_id is None:
        raise Refusal(_("The rows of this dataset were deleted."), status=410, code="gone")
    if asked.mode != Mode.APPEND:
        holds.require_free(tenant, dataset=dataset)
    key = _key_column(base, asked)
    source = _source(tenant, dataset, base, asked, needed=dataset.unit_column or key)
    tokens = _tokens(tenant, asked, has_file=source is not None)
    _require_room(tenant, base, source if asked.mode != Mode.REMOVE else None)
    total = base.rows + (source.rows if source else 0)
    try:
        with transaction.atomic():
            change = VersionChange.objects.of(tenant).create(
                dataset=dataset, base=base, number=base.number + 1, mode=asked.mode, key_column=key,
                file=source.file if source else None, tokens=tokens, rows_total=total, created_by=actor.label[:200],
            )  # fmt: skip
    except IntegrityError as error:
        raise busy() from error
    audit.record(
        tenant, actor, "dataset.change", dataset, mode=asked.mode, version=change.number,
        file=source.file.public_id if source and source.file else "", units=len(asked.units),
    )  # fmt: skip
    enqueue("modeling.make_version", tenant_id=tenant.pk, change_id=change.pk)
    return change


def newest_version(tenant: Tenant, dataset: Dataset) -> DatasetVersion:
    """The newest version; raises NotFound for a dataset without one."""
    versions = DatasetVersion.objects.of(tenant).filter(dataset=dataset).select_related("dataset", "segments")
    found = versions.order_by("-number").first()
    if found is None:
        raise NotFound(_("There is no such dataset."))
    return found


def _key_column(base: DatasetVersion, asked: Asked) -> str:
    dataset = base.dataset
    if dataset.unit_column or asked.mode == Mode.MASK or (asked.mode == Mode.APPEND and not asked.key):
        return ""
    key = asked.key or (dataset.columns.get("catalogue_id", "") if dataset.is_catalogue else "")
    if not key:
        raise Refusal(
            _("Each row is one person here: name the column (key) whose values tell which row is meant."),
            param="key",
            code="key_required",
        )
    if key not in layout_of(base).columns:
        raise Refusal(_("The dataset has no such column."), param="key", code="column_not_found")
    return key


def _source(
    tenant: Tenant, dataset: Dataset, base: DatasetVersion, asked: Asked, *, needed: str
) -> DatasetVersion | None:
    """The version that the file's own inspection made, checked against the dataset."""
    if not asked.file:
        if asked.mode not in (Mode.REMOVE, Mode.MASK):
            raise Refusal(_("Name the file whose rows are meant."), param="file", code="file_required")
        return None
    if asked.mode == Mode.MASK:
        raise Refusal(_("Masking takes no file: it reads the dataset's own rows."), param="file")
    file = File.objects.of(tenant).filter(public_id=asked.file, deleted_at=None).first()
    if file is None:
        raise NotFound(_("There is no such file."), param="file")
    if file.status == File.Status.UPLOADED and file.purpose not in File.KEPT_AS_IS:
        raise Conflict(_("This file is still being inspected; ask again in a moment."), code="file_not_ready")
    versions = DatasetVersion.objects.of(tenant).filter(file=file, dataset__deleted_at=None)
    if versions.filter(dataset=dataset).exists():
        raise Refusal(_("This file's rows are in the dataset already."), param="file", code="file_in_dataset")
    source = (
        versions.exclude(segments=None)
        .select_related("dataset", "segments", "file")
        .order_by("number")
        .last()
    )
    if source is None:
        raise Refusal(_("This file has no rows that can be used."), param="file", code="invalid_file")
    if source.dataset.is_catalogue != dataset.is_catalogue:
        raise Refusal(
            _("One of them is a catalogue and the other holds people's records: they cannot be joined."),
            param="file", code="invalid_file",
        )  # fmt: skip
    if source.dataset.unit_fixed and source.dataset.unit_column != dataset.unit_column:
        raise Conflict(
            _("A private job fixed another unit for this file's rows, and it cannot change."),
            code="unit_fixed",
        )
    _require_lasting(tenant, dataset, file)
    require_unchanging(tenant, source.dataset)
    _require_columns(base, source, needed if asked.mode == Mode.REMOVE else "")
    return source


def _require_lasting(tenant: Tenant, dataset: Dataset, file: File) -> None:
    """A file that goes at a time of its own cannot go while its rows are joined with others'."""
    own = File.objects.of(tenant).filter(
        pk__in=DatasetVersion.objects.of(tenant).filter(dataset=dataset).exclude(file=None).values("file")
    )
    if file.expires_at is not None or own.exclude(expires_at=None).exists():
        raise Conflict(
            _("A file that expires cannot be joined with others: upload it without an expiry."),
            param="file",
            code="file_expires",
        )


def _require_columns(base: DatasetVersion, source: DatasetVersion, only: str) -> None:
    """The file must have the dataset's columns, in any order; to remove people, only the one that names them."""
    ours, theirs = set(layout_of(base).columns), set(layout_of(source).columns)
    missing, extra = sorted({only} - theirs if only else ours - theirs), sorted(theirs - ours)
    if not missing and (only or not extra):
        return
    parts = []
    if missing:
        parts.append(
            ngettext("It lacks the column %(names)s.", "It lacks the columns %(names)s.", len(missing))
            % {"names": _listed(missing)}
        )
    if extra and not only:
        parts.append(
            ngettext(
                "It has the column %(names)s too many.", "It has the columns %(names)s too many.", len(extra)
            )
            % {"names": _listed(extra)}
        )
    raise Refusal(
        _("The file's columns are not those of the dataset (their order does not matter).") + " " + " ".join(parts),
        param="file", code="columns_differ",
    )  # fmt: skip


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:NAMES_SHOWN])
    rest = len(names) - NAMES_SHOWN
    return shown if rest <= 0 else _("%(names)s and %(rest)s more") % {"names": shown, "rest": rest}


def _tokens(tenant: Tenant, asked: Asked, *, has_file: bool) -> bytes:
    """Keyed hashes of the names; the names themselves are not kept."""
    if asked.mode != Mode.REMOVE:
        if asked.units:
            raise Refusal(_("units names whom to remove; other modes take a file."), param="units")
        return b""
    if not asked.units and not has_file:
        raise Refusal(
            _("Name the people to remove, or a file whose column names them."),
            param="units",
            code="units_required",
        )
    if len(asked.units) > UNITS_MOST:
        raise Refusal(
            _("Name at most %(most)s people at once, or send a file.") % {"most": f"{UNITS_MOST:,}"},
            param="units",
        )
    key = handle_key(tenant)
    return b"".join({person_handle(key, name) for name in asked.units})


def _require_room(tenant: Tenant, base: DatasetVersion, source: DatasetVersion | None) -> None:
    """A version is complete in itself, so its rows count against the storage limit."""
    found = [one.segments for one in (base, source) if one is not None and one.segments is not None]
    limits.require(tenant, "storage_bytes", stored_bytes(tenant) + sum(map(_size, found)))


def _size(stored: VaultObject) -> int:
    return int(stored.size_bytes)


def own_file(tenant: Tenant, dataset: Dataset) -> File | None:
    """The file that a dataset began with: what a job names to train on it."""
    first = DatasetVersion.objects.of(tenant).filter(dataset=dataset, mode=Mode.FILE).select_related("file")
    found = first.order_by("number").first()
    return found.file if found is not None else None


def home_of(tenant: Tenant, file: File) -> Dataset | None:
    """The dataset that holds a file's rows: the one that began with it, or the one that took them in."""
    versions = DatasetVersion.objects.of(tenant).filter(file=file, dataset__deleted_at=None)
    found = list(versions.select_related("dataset").order_by("number"))
    own = [one for one in found if one.mode not in DatasetVersion.CHAINED]
    return (own or found)[0].dataset if found else None


def has_jobs(tenant: Tenant, dataset: Dataset) -> bool:
    """Whether any job ever named a version of this dataset."""
    rows = Job.objects.of(tenant)
    return (
        rows.filter(dataset_version__dataset=dataset).exists()
        or rows.filter(catalogue_version__dataset=dataset).exists()
    )
