"""Inspects an uploaded file: parse in the limited child, cut into units, make the dataset, shred the raw object."""

from __future__ import annotations

import hmac
import logging
import uuid
from contextlib import closing
from dataclasses import asdict
from hashlib import sha256
from typing import Any, BinaryIO, cast

from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext as _

from modeling.actions import personal_screening, quality, rereading
from modeling.actions.declarations import reading_of
from modeling.actions.inspection_lease import LEASE, InspectionLease, Superseded, kept
from modeling.actions.segmenting import (
    Cut,
    SegmentWriting,
    Written,
    insert_unit_keys,
)
from modeling.core.child import Parsed, Summary, parse_in_child
from modeling.core.child_ranges import parquet_size
from modeling.core.columns import Guesses, guess_roles
from modeling.core.tables import FileRefused, RowError, refuse
from modeling.models import Dataset, DatasetVersion, File, Inspection, Job
from modeling.packs import PACKS
from modeling.packs.base import ROLES
from saas.lib import background, live
from saas.lib.db import uuid7
from saas.lib.errors import Conflict
from tenants import audit, vault
from tenants.models import Tenant, VaultObject
from tenants.scope import scope

logger = logging.getLogger(__name__)
ATTEMPTS = 3
_BLOCK_BYTES = 1 << 20
BAD_SHARE = 0.5  # a file with more bad rows than good ones is read wrongly: refuse it


def inspect_file(tenant_id: uuid.UUID | str, file_id: uuid.UUID | str) -> None:
    """The task's body. Does nothing when another worker holds the file or it is done."""
    with scope(tenant_id):
        tenant = Tenant.objects.get(pk=tenant_id)
        file = _claim(tenant, file_id)
        attempt = (
            Inspection.objects.of(tenant).values_list("attempts", flat=True).filter(file_id=file_id).first()
        )
    if file is None or attempt is None:
        return
    try:
        with kept(tenant, file, attempt) as lease:
            _inspect(tenant, file, lease)
    except Superseded:
        logger.info("file %s is inspected by another worker", file.public_id)
    except FileRefused as refused:
        logger.info("file %s refused: %s", file.public_id, refused.code)
        _refuse(tenant, file, refused)
    except vault.KeysAway:  # later, and as often as needed: the file is not at fault
        with scope(tenant):
            mine = Inspection.objects.of(tenant).filter(file_id=file.pk, done_at=None)
            mine.update(lease_until=None, attempts=F("attempts") - 1)
    except Conflict as used:  # something began to rest on the rows while they were read in another way
        with scope(tenant):
            rereading.stays(tenant, file, used.message, used)


def _claim(tenant: Tenant, file_id: uuid.UUID | str) -> File | None:
    """Take the inspection, at most three times; None when there is nothing to take."""
    now = timezone.now()
    free = Q(lease_until=None) | Q(lease_until__lt=now)
    rows = Inspection.objects.of(tenant).filter(free, file_id=file_id, done_at=None)
    if not rows.update(lease_until=now + LEASE, attempts=F("attempts") + 1):
        return None
    file = File.objects.of(tenant).filter(pk=file_id, status=File.Status.UPLOADED, deleted_at=None).first()
    tries = Inspection.objects.of(tenant).values_list("attempts", flat=True).get(file_id=file_id)
    if file is not None and tries > ATTEMPTS:
        failed = refuse("failed", _("This file could not be inspected. Please upload it again."))
        if not rereading.stays(tenant, file, failed.message, failed):
            _end(tenant, file, failed.error)
        return None
    if file is None or (file.object_id is None and rereading.version_of(tenant, file) is None):
        Inspection.objects.of(tenant).filter(file_id=file_id).update(done_at=now)
        return None
    return file


def _inspect(tenant: Tenant, file: File, lease: InspectionLease) -> None:
    with scope(tenant):
        # Before a row is read: it sees who is erased meanwhile.
        target = rereading.target(tenant, file, uuid7())
        raw = rereading.content_of(tenant, file)
        digest = hmac.new(vault.derive(tenant, "content-hash"), digestmod=sha256)
    with closing(raw):
        parsed = parse_in_child(_source(raw, digest, lease), reading_of(file))
        with closing(parsed):
            _write(tenant, file, target, parsed, digest, lease)


def _source(raw: Any, digest: hmac.HMAC, lease: InspectionLease) -> BinaryIO:
    """What the child reads: a stream, digested while it passes; a Parquet file is digested first, then sought in."""
    digesting = cast(BinaryIO, _Digesting(raw, digest, lease))
    if parquet_size(raw) is None:
        return digesting
    while digesting.read(_BLOCK_BYTES):
        pass
    raw.seek(0)
    return cast(BinaryIO, raw)


class _Digesting:
    """Passes bytes on and digests them under the tenant's key."""

    def __init__(self, source: Any, digest: hmac.HMAC, lease: InspectionLease) -> None:
        self._source = source
        self._digest = digest
        self._lease = lease

    def read(self, size: int) -> bytes:
        """The next bytes."""
        data: bytes = self._source.read(size) or b""
        self._digest.update(data)
        self._lease.bytes += len(data)
        return data


def _write(
    tenant: Tenant,
    file: File,
    target: rereading.Target,
    parsed: Parsed,
    digest: hmac.HMAC,
    lease: InspectionLease,
) -> None:
    is_catalogue = file.purpose == File.Purpose.USER_DATA
    pack = PACKS.get(tenant.pack, PACKS["general"])
    guesses = guess_roles(parsed.facts, {role: pack.hints(role) for role in ROLES}, is_catalogue=is_catalogue)
    with scope(tenant):
        guesses = target.chosen(parsed.layout.columns) or guesses
        sink = vault.create(tenant, "segments")
        writing = SegmentWriting(tenant, sink, target.place(tenant), target.ring, target.known)
        screening = personal_screening.screening_of(tenant, file, parsed.facts, guesses)
    with sink:
        pieces = screening.pieces(lease.watched(parsed.pieces))
        written = writing.write(pieces, _cut(parsed, guesses, is_catalogue=is_catalogue))
        summary = _checked(parsed.summary, written)
        dataset = Dataset(
            id=target.dataset_id,
            tenant=tenant,
            name=file.name,
            pack=pack.slug,
            task=guesses.task,
            columns={role: guess.column for role, guess in guesses.roles.items()},
            is_catalogue=is_catalogue,
            unit_column="" if is_catalogue else guesses.column("unit"),
        )
        schema = _schema(parsed, guesses, summary, written) | {"reading": dict(file.reading)}
        with scope(tenant):
            if not _still_wanted(tenant, file):
                return
            target.keep(dataset)
            insert_unit_keys(dataset, written.new_keys)
            segments = sink.finish()
            version = save_version(
                dataset, target.number, file, segments, written, summary, schema, digest.hexdigest()
            )
            target.made(version)
            personal_screening.keep(version, screening)
            _succeed(tenant, file, version, _format(parsed))
            quality.ask(version)


def _cut(parsed: Parsed, guesses: Guesses, *, is_catalogue: bool) -> Cut:
    columns = parsed.layout.columns
    unit, label = guesses.column("unit"), guesses.column("label")
    return Cut(
        unit_at=columns.index(unit) if unit else None,
        is_catalogue=is_catalogue,
        label_at=columns.index(label) if label else None,
    )


def _checked(summary: Summary | None, written: Written) -> Summary:
    """Refuse a file without good rows, or with more bad than good ones, by its first error."""
    if summary is None:
        raise refuse("broken_parser", _("This file could not be read safely. Please report it."))
    bad = sum(summary.errors_by_rule.values())
    if written.rows == 0 and not bad:
        raise refuse("empty", _("The file has a header and no rows. Add the rows below it."), line=1)
    if bad > BAD_SHARE * (bad + written.rows):
        raise TooManyErrors(summary)
    return summary


class TooManyErrors(FileRefused):
    """More bad rows than good ones; `summary` has the errors."""

    def __init__(self, summary: Summary) -> None:
        super().__init__(summary.errors[0])
        self.summary = summary


def _format(parsed: Parsed) -> str:
    """csv, jsonl or parquet: what was uploaded, whatever it is written again as."""
    is_parquet = parsed.layout.found.get("packed") == "parquet"
    return "parquet" if is_parquet else parsed.layout.format


def _schema(parsed: Parsed, guesses: Guesses, summary: Summary, written: Written) -> dict[str, Any]:
    return {
        "format": parsed.layout.format,
        "encoding": parsed.layout.encoding,
        "delimiter": parsed.layout.delimiter,
        "layout": parsed.layout.as_json(),
        "tail": summary.tail,
        "columns": [fact.as_json() for fact in parsed.facts],
        "guesses": {role: asdict(guess) for role, guess in guesses.roles.items()},
        "is_grouped": bool(guesses.column("unit")),
        "lines": written.lines,
        "rows_without_unit": written.rows_without_unit,
    }


def save_version(
    dataset: Dataset,
    number: int,
    file: File | None,
    segments: VaultObject,
    written: Written,
    summary: Summary,
    schema: dict[str, Any],
    content_hash: str,
) -> DatasetVersion:
    """Insert a version's row; inside the tenant's scope."""
    return DatasetVersion.objects.of(dataset.tenant_id).create(
        dataset=dataset,
        number=number,
        file=file,
        rows=written.rows,
        units=written.units,
        unit_column=dataset.unit_column,
        labels=written.labels,
        schema=schema,
        errors=[asdict(error) for error in summary.errors],
        error_count=sum(summary.errors_by_rule.values()),
        errors_by_rule=summary.errors_by_rule,
        segments=segments,
        content_hash=content_hash,
        row_marks=written.marks,
    )


def _still_wanted(tenant: Tenant, file: File) -> bool:
    rows = File.objects.of(tenant).select_for_update().filter(pk=file.pk, deleted_at=None)
    return rows.filter(status=File.Status.UPLOADED).exists()


def _succeed(tenant: Tenant, file: File, version: DatasetVersion, format: str) -> None:  # noqa: A002
    details = ""
    if version.error_count:
        details = _("%(bad)s of %(all)s rows were left out: see the errors.") % {
            "bad": version.error_count,
            "all": version.error_count + version.rows,
        }
    _close(tenant, file, status=File.Status.PROCESSED, status_details=details, format=format)
    audit.record(
        tenant,
        audit.SYSTEM,
        "file.inspected",
        file,
        rows=version.rows,
        units=version.units,
        errors=version.error_count,
    )


def _refuse(tenant: Tenant, file: File, refused: FileRefused) -> None:
    with scope(tenant):
        if not _still_wanted(tenant, file):
            return
        if not rereading.stays(tenant, file, _told(refused.error), refused):
            summary = refused.summary if isinstance(refused, TooManyErrors) else None
            _end(tenant, file, refused.error, summary)


def _told(error: RowError) -> str:
    where = (
        ""
        if not error.line
        else _("Line %(line)s, column %(column)s: ") % {"line": error.line, "column": error.column}
        if error.column
        else _("Line %(line)s: ") % {"line": error.line}
    )
    return (where + error.fix)[:500]


def _end(tenant: Tenant, file: File, error: RowError, summary: Summary | None = None) -> None:
    """The file is refused; its sealed stream stays for a day, in case that it only has to be read in another way."""
    errors, by_rule = (
        ([error], {error.rule: 1}) if summary is None else (summary.errors, summary.errors_by_rule)
    )
    fields = {"errors": [asdict(one) for one in errors], "errors_by_rule": by_rule, "object": file.object}
    _close(tenant, file, status=File.Status.ERROR, status_details=_told(error), **fields)
    audit.record(tenant, audit.SYSTEM, "file.refused", file, rule=error.rule, line=error.line)


def _close(tenant: Tenant, file: File, **fields: Any) -> None:
    """Set the file's last state, shred the raw stream unless it stays, and tell everybody who waits."""
    fields = {"object": None, "errors": [], "errors_by_rule": {}} | fields
    File.objects.of(tenant).filter(pk=file.pk).update(**fields)
    if file.object is not None and fields["object"] is None:
        vault.destroy(file.object)
    now = timezone.now()
    kept_until = now + rereading.KEPT_FOR if fields["object"] is not None else None
    Inspection.objects.of(tenant).filter(file=file).update(
        done_at=now, lease_until=None, kept_until=kept_until
    )
    live.publish(
        live.group_for("file", file.public_id), {"id": file.public_id, "status": str(fields["status"])}
    )
    waiting = Job.objects.of(tenant).filter(Q(file=file) | Q(catalogue_file=file), state=Job.State.VALIDATING)
    for job_id in waiting.values_list("pk", flat=True):
        background.enqueue("modeling.prepare_job", tenant_id=tenant.pk, job_id=job_id, swept="yes")
