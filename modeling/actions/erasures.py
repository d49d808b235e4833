"""Erasing one person: the key of their rows is destroyed, so that no version, copy or backup of them can be read.

What was learnt from them stays learnt: the models are named, with what their epsilon means. The name is never written
down; the keyed handle is, so that a file which brings the person's rows again finds them erased.
"""

from __future__ import annotations

import hmac
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from django.db.models import Q
from django.utils.translation import gettext as _

from modeling.actions import holds, quality, receipts, version_diffs
from modeling.actions.dataset_versions import newest_version
from modeling.actions.datasets import overlapping_datasets, retire, shred_unit
from modeling.core import canonical
from modeling.core import receipts as envelopes
from modeling.models import Dataset, DatasetVersion, Erasure, File, Job, ModelVersion, UnitKey
from modeling.rows import count_frames, open_rows, within
from modeling.units import handle_key, held_out_key, is_held_out, person_handle
from saas.lib.errors import Conflict, NotFound, Refusal
from tenants import audit, vault
from tenants.audit import Actor
from tenants.models import Tenant
from tenants.scope import TenantQuerySet, scope

PREDICATE_TYPE: Final = "https://cloister.example/erasure/v1"  # a name, not an address
SCANNED_ROWS: Final = 20_000_000  # versions with more rows in all are not searched for who is in them


@dataclass(frozen=True)
class Asked:
    """Whom to erase: a name of the unit column, or a line of the newest version where each row is one person."""

    unit: str | None = None
    line: int | None = None
    everywhere: bool = False  # in every dataset of the tenant that knows this person


@dataclass
class _Found:
    """One dataset that knows the person, and what is in it."""

    dataset: Dataset
    rows: int = 0  # in the newest version
    versions: list[DatasetVersion] = field(
        default_factory=list
    )  # those in which the person's rows were readable


def erase(tenant: Tenant, actor: Actor, dataset: Dataset, asked: Asked) -> Erasure:
    """Erase one person for good; opens the scope itself, since counting reads the rows.

    Raises NotFound for somebody the dataset does not know, Conflict when erased before or kept by a legal hold.
    """
    with scope(tenant):
        base = newest_version(tenant, dataset)
        _require_erasable(tenant, dataset, asked)
    handle = _handle(tenant, base, asked)
    with scope(tenant):
        knowing = _knowing(tenant, dataset, handle, everywhere=asked.everywhere)
        for one in knowing:
            holds.require_free(tenant, dataset=one.dataset)
    for one in knowing:
        _count(tenant, one, handle)
    with scope(tenant):
        return _destroy(tenant, actor, base, handle, knowing)


def person_tag(tenant: Tenant, handle: bytes) -> str:
    """The person in lists and certificates: nobody without the tenant's key and the name can work it out."""
    return hmac.digest(vault.derive(tenant, "erasure"), handle, "sha256").hex()


def _require_erasable(tenant: Tenant, dataset: Dataset, asked: Asked) -> None:
    if dataset.is_catalogue:
        raise Refusal(
            _("A catalogue holds things, not people. Remove rows by a new version."), code="no_people"
        )
    if dataset.unit_column and not asked.unit:
        raise Refusal(
            _("Write what stands in the column %(column)s for this person.") % {"column": dataset.unit_column},
            param="unit", code="unit_required",
        )  # fmt: skip
    if not dataset.unit_column and asked.line is None:
        raise Refusal(
            _("Each row is one person here: give the line of the row in the newest version."),
            param="line", code="line_required",
        )  # fmt: skip
    holds.require_free(tenant, dataset=dataset)


def _handle(tenant: Tenant, base: DatasetVersion, asked: Asked) -> bytes:
    if base.dataset.unit_column:
        with within(tenant.pk):
            return person_handle(handle_key(tenant), asked.unit)
    for handle, row in open_rows(base):
        if row.line == asked.line:
            return handle
    raise NotFound(_("The newest version has no row with this line."), param="line")


def _knowing(tenant: Tenant, dataset: Dataset, handle: bytes, *, everywhere: bool) -> list[_Found]:
    """The datasets in which the person has a key; raises NotFound or Conflict when the asked one is not among them."""
    own = UnitKey.objects.of(tenant).filter(dataset=dataset, handle=handle).first()
    if own is None:
        raise NotFound(_("Nobody of this name is in this dataset."), param="unit")
    if not own.wrapped:
        earlier = Erasure.objects.of(tenant).filter(person=person_tag(tenant, handle)).order_by("id").first()
        raise Conflict(
            _("This person was erased before%(when)s.")
            % {"when": f" ({earlier.created_at:%Y-%m-%d}, {earlier.public_id})" if earlier else ""},
            code="already_erased",
        )
    keys = UnitKey.objects.of(tenant).filter(handle=handle, dataset__deleted_at=None).exclude(wrapped=b"")
    if not everywhere:
        keys = keys.filter(dataset=dataset)
    return [_Found(key.dataset) for key in keys.select_related("dataset").order_by("dataset_id")]


def _count(tenant: Tenant, one: _Found, handle: bytes) -> None:
    """The versions that hold the person, and how many rows the newest of them has."""
    with scope(tenant):
        versions = DatasetVersion.objects.of(tenant).filter(dataset=one.dataset).exclude(segments=None)
        living = list(versions.select_related("dataset").order_by("-number"))
    if sum(version.rows for version in living) > SCANNED_ROWS:
        living, one.versions = living[:1], living[1:]  # taken to be in the others, the safe side
    for version in living:
        if count_frames(version, handle):
            one.versions.append(version)
    if living:
        one.rows = sum(1 for _row in open_rows(living[0], only={handle}))


def _destroy(
    tenant: Tenant, actor: Actor, base: DatasetVersion, handle: bytes, knowing: list[_Found]
) -> Erasure:
    """One transaction: the keys, their tombstones, raw streams, what was worked out of the rows, and the record."""
    dataset = base.dataset
    locked = Dataset.objects.of(tenant).select_for_update().filter(pk__in=[one.dataset.pk for one in knowing])
    list(locked.order_by("pk"))
    if newest_version(tenant, dataset).pk != base.pk:
        raise Conflict(_("The dataset was changed meanwhile. Please try it again."), code="version_conflict")
    for one in knowing:  # again: counting may have taken minutes
        holds.require_free(tenant, dataset=one.dataset)
        _retire_other_cuts(tenant, one.dataset)
    destroyed = [shred_unit(one.dataset, handle) for one in knowing]
    if not destroyed[[one.dataset.pk for one in knowing].index(dataset.pk)]:
        raise Conflict(_("This person was erased a moment ago."), code="already_erased")
    for one in knowing:
        _forget(tenant, one.dataset)
    told, running = _learnt(tenant, knowing, handle)
    reached = [
        {
            "dataset": one.dataset.public_id,
            "rows": one.rows,
            "versions": sorted(v.number for v in one.versions),
        }
        for one in knowing
    ]
    erasure = Erasure(
        tenant=tenant, dataset=dataset, person=person_tag(tenant, handle), reached=reached, models_told=told,
        open_jobs=running, created_by=actor.label[:200],
    )  # fmt: skip
    erasure.certificate = _certificate(tenant, erasure, knowing)
    erasure.save(force_insert=True)
    audit.record(
        tenant, actor, "person.erased", erasure, datasets=len(reached), rows=sum(one.rows for one in knowing),
        models=len(told),
    )  # fmt: skip
    return erasure


def _retire_other_cuts(tenant: Tenant, dataset: Dataset) -> None:
    """Destroy cuts by another unit, in which the rows lie under other keys; raises Conflict while a job reads one."""
    versions = DatasetVersion.objects.of(tenant).filter(dataset=dataset).exclude(segments=None)
    unit = newest_version(tenant, dataset).unit_column
    others = versions.exclude(unit_column=unit)
    for version in others.select_related("dataset", "segments"):
        retire(tenant, version)
    if others.exists():
        raise Conflict(
            _("A job still reads these rows as they were cut before. Cancel the job or wait for its end."),
            code="dataset_in_use",
        )


def _forget(tenant: Tenant, dataset: Dataset) -> None:
    """What was derived from the rows, and raw streams that still hold them, such as a file kept to be read again."""
    version_diffs.forget(tenant, dataset)
    quality.renew(dataset)
    files = DatasetVersion.objects.of(tenant).filter(dataset=dataset).values_list("file_id", flat=True)
    raw = File.objects.of(tenant).filter(pk__in=list(files)).exclude(object=None)
    for file in raw.exclude(purpose__in=File.KEPT_AS_IS).select_related("object"):
        File.objects.of(tenant).filter(pk=file.pk).update(object=None)
        if file.object is not None:
            vault.destroy(file.object)


def _learnt(tenant: Tenant, knowing: list[_Found], handle: bytes) -> tuple[list[dict[str, Any]], list[str]]:
    """Models trained on versions that held the person, and open jobs that may still hold the rows in memory."""
    versions = [version.pk for one in knowing for version in one.versions]
    jobs = Job.objects.of(tenant).filter(dataset_version__in=versions)
    side = "held_out" if is_held_out(held_out_key(tenant), handle) else "train"
    rows = ModelVersion.objects.of(tenant).filter(job__in=jobs).select_related("job").order_by("id")
    told = [
        {
            "model": one.name,
            "job": one.job.public_id,
            "state": one.state,
            "side": side,
            "epsilon": one.job.epsilon,
            "delta": one.job.delta,
            "private": one.job.is_private,
            "means": list(one.card.get("privacy", {}).get("plain_words", []))[:2],
        }
        for one in rows
    ]
    return told, list(jobs.filter(state__in=Job.OPEN).order_by("id").values_list("public_id", flat=True))


def _certificate(tenant: Tenant, erasure: Erasure, knowing: list[_Found]) -> dict[str, Any]:
    """Signed like a receipt: what was destroyed when, and what stays; whom, as a keyed hash only."""
    versions = [version for one in knowing for version in one.versions]
    subjects = {
        f"{version.dataset.public_id}/versions/{version.number}": version.content_hash for version in versions
    }
    predicate = {
        "format": 1,
        "erasure": erasure.public_id,
        "tenant": tenant.slug,
        "at": datetime.now(UTC).isoformat(),
        "person": erasure.person,
        "person_is": "HMAC-SHA-256 of the person's handle under a key of the tenant",
        "destroyed": "the AES-256 key of this person's rows in each dataset named: all versions, copies and backups "
        "of them are unreadable; backups of keys expire within 30 days and are purged of it before they are used",
        "datasets": canonical.exact(erasure.reached),
        "models": [
            {
                key: canonical.exact(one[key])
                for key in ("model", "job", "state", "side", "epsilon", "delta", "private")
            }
            for one in erasure.models_told
        ],
        "models_are": "not destroyed: what each may reveal of one person is bounded by its epsilon, if it has one",
        "open_jobs": list(erasure.open_jobs),
    }
    made = envelopes.statement(subjects, predicate, predicate_type=PREDICATE_TYPE)
    return envelopes.sign(made, receipts.signing_key())


def later_models(tenant: Tenant, erasure: Erasure) -> list[ModelVersion]:
    """Models of runs that were under way when the person was erased: they may have had the rows in memory."""
    jobs = Job.objects.of(tenant).filter(public_id__in=erasure.open_jobs)
    return list(ModelVersion.objects.of(tenant).filter(job__in=jobs).select_related("job").order_by("id"))


def unreached(tenant: Tenant, dataset: Dataset) -> list[Dataset]:
    """Datasets of the same people whose rows go by another unit: a name of this one does not find them there."""
    others = overlapping_datasets(dataset)
    return [one for one in others if one.deleted_at is None and one.unit_column != dataset.unit_column]


def reaching(tenant: Tenant, dataset: Dataset) -> TenantQuerySet[Erasure]:
    """Erasures that reached a dataset."""
    is_reached = Q(dataset=dataset) | Q(reached__contains=[{"dataset": dataset.public_id}])
    return Erasure.objects.of(tenant).filter(is_reached)


def totals(erasure: Erasure) -> Counter[str]:
    """Rows, versions and datasets that an erasure reached."""
    return Counter(
        datasets=len(erasure.reached),
        versions=sum(len(one["versions"]) for one in erasure.reached),
        rows=sum(one["rows"] for one in erasure.reached),
    )
