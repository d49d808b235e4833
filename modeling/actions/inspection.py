"""Inspects an uploaded file: parse in the limited child, cut into units, make the dataset, shred the raw object."""

from __future__ import annotations

import hmac
import logging
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from datetime import timedelta
from hashlib import sha256
from itertools import chain
from typing import Any, BinaryIO, cast

from django.db.models import F, Q
from django.utils import timezone
from django.utils.translation import gettext as _

from modeling.actions.segmenting import (
    Cut,
    SegmentWriting,
    Written,
    fresh_ring,
    insert_dataset_key,
    insert_unit_keys,
)
from modeling.core.child import Parsed, Summary, parse_in_child
from modeling.core.columns import Guesses, guess_roles
from modeling.core.segments import Place
from modeling.core.tables import FileRefused, Reading, Row, RowError, refuse
from modeling.models import Dataset, DatasetVersion, File, Inspection, Job
from modeling.packs import PACKS
from modeling.packs.base import ROLES
from saas.lib import background, live
from saas.lib.db import uuid7
from tenants import audit, vault
from tenants.models import Tenant, VaultObject
from tenants.scope import scope

logger = logging.getLogger(__name__)
LEASE = timedelta(minutes=20)
ATTEMPTS = 3
BAD_SHARE = 0.5  # a file with more bad rows than good ones is read wrongly: refuse it


def inspect_file(tenant_id: uuid.UUID | str, file_id: uuid.UUID | str) -> None:
    """The task's body. Does nothing when another worker holds the file or it is done."""
    with scope(tenant_id):
        tenant = Tenant.objects.get(pk=tenant_id)
        file = _claim(tenant, file_id)
        source = file.object if file is not None else None
    if file is None or source is None:
        return
    try:
        _inspect(tenant, file, source)
    except FileRefused as refused:
        logger.info("file %s refused: %s", file.public_id, refused.code)
        _refuse(tenant, file, refused.error)


def _claim(tenant: Tenant, file_id: uuid.UUID | str) -> File | None:
    """Take the inspection for 20 minutes, at most three times; None when there is nothing to take."""
    now = timezone.now()
    free = Q(lease_until=None) | Q(lease_until__lt=now)
    rows = Inspection.objects.of(tenant).filter(free, file_id=file_id, done_at=None)
    if not rows.update(lease_until=now + LEASE, attempts=F("attempts") + 1):
        return None
    file = File.objects.of(tenant).filter(pk=file_id, status=File.Status.UPLOADED, deleted_at=None).first()
    tries = Inspection.objects.of(tenant).values_list("attempts", flat=True).get(file_id=file_id)
    if file is not None and tries > ATTEMPTS:
        _end(
            tenant,
            file,
            RowError(0, 0, "failed", _("This file could not be inspected. Please upload it again.")),
        )
        return None
    if file is None or file.object_id is None:
        Inspection.objects.of(tenant).filter(file_id=file_id).update(done_at=now)
        return None
    return file


def _inspect(tenant: Tenant, file: File, object: VaultObject) -> None:  # noqa: A002
    with scope(tenant):
        digest = hmac.new(vault.derive(tenant, "content-hash"), digestmod=sha256)
        raw = vault.open(object)
    with closing(raw):
        source = cast(BinaryIO, _Digesting(raw, digest))
        parsed = parse_in_child(source, Reading(name=file.name, encoding=file.encoding))
        with closing(parsed):
            _write(tenant, file, parsed, digest)


class _Digesting:
    """Passes bytes on and digests them under the tenant's key."""

    def __init__(self, source: Any, digest: hmac.HMAC) -> None:
        self._source = source
        self._digest = digest

    def read(self, size: int) -> bytes:
        """The next bytes."""
        data: bytes = self._source.read(size) or b""
        self._digest.update(data)
        return data


def _write(tenant: Tenant, file: File, parsed: Parsed, digest: hmac.HMAC) -> None:
    is_catalogue = file.purpose == File.Purpose.USER_DATA
    pack = PACKS.get(tenant.pack, PACKS["general"])
    guesses = guess_roles(parsed.facts, {role: pack.hints(role) for role in ROLES}, is_catalogue=is_catalogue)
    dataset_id = uuid7()
    with scope(tenant):
        ring, wrapped = fresh_ring(tenant, dataset_id)
        sink = vault.create(tenant, "segments")
        writing = SegmentWriting(tenant, sink, Place(str(tenant.pk), str(dataset_id), 1), ring)
    with sink:
        written = writing.write(_flat(parsed), _cut(parsed, guesses, is_catalogue=is_catalogue))
        summary = _checked(parsed.summary, written)
        dataset = Dataset(
            id=dataset_id,
            tenant=tenant,
            name=file.name,
            pack=pack.slug,
            task=guesses.task,
            columns={role: guess.column for role, guess in guesses.roles.items()},
            is_catalogue=is_catalogue,
            unit_column="" if is_catalogue else guesses.column("unit"),
        )
        schema = _schema(parsed, guesses, summary, written)
        with scope(tenant):
            if not _still_wanted(tenant, file):
                return
            dataset.save(force_insert=True)
            insert_dataset_key(dataset, wrapped)
            insert_unit_keys(dataset, written.new_keys)
            segments = sink.finish()
            version = save_version(dataset, 1, file, segments, written, summary, schema, digest.hexdigest())
            _succeed(tenant, file, version, parsed.layout.format)


def _flat(parsed: Parsed) -> Iterator[Row]:
    return chain.from_iterable(parsed.batches)


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
        raise refuse("empty", _("The file has a header and no rows."), line=1)
    if bad > BAD_SHARE * (bad + written.rows):
        raise FileRefused(summary.errors[0])
    return summary


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


def _refuse(tenant: Tenant, file: File, error: RowError) -> None:
    with scope(tenant):
        if _still_wanted(tenant, file):
            _end(tenant, file, error)


def _end(tenant: Tenant, file: File, error: RowError) -> None:
    where = (
        ""
        if not error.line
        else _("Line %(line)s, column %(column)s: ") % {"line": error.line, "column": error.column}
        if error.column
        else _("Line %(line)s: ") % {"line": error.line}
    )
    details = (where + error.fix)[:500]
    _close(tenant, file, status=File.Status.ERROR, status_details=details, errors=[asdict(error)])
    audit.record(tenant, audit.SYSTEM, "file.refused", file, rule=error.rule, line=error.line)


def _close(tenant: Tenant, file: File, **fields: Any) -> None:
    """Set the file's last state, shred the raw stream, and tell everybody who waits."""
    File.objects.of(tenant).filter(pk=file.pk).update(object=None, **fields)
    if file.object is not None:
        vault.destroy(file.object)
    Inspection.objects.of(tenant).filter(file=file).update(done_at=timezone.now(), lease_until=None)
    live.publish(
        live.group_for("file", file.public_id), {"id": file.public_id, "status": str(fields["status"])}
    )
    waiting = Job.objects.of(tenant).filter(Q(file=file) | Q(catalogue_file=file), state=Job.State.VALIDATING)
    for job_id in waiting.values_list("pk", flat=True):
        background.enqueue("modeling.prepare_job", tenant_id=tenant.pk, job_id=job_id, swept="yes")
