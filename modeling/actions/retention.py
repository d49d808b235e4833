"""Retention rules: each class of data is deleted so many days after it came, unless held or still in use."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.db.models import F, OuterRef, QuerySet, Subquery
from django.utils import timezone
from django.utils.translation import gettext as _

from modeling.actions import holds
from modeling.actions.datasets import destroy_segments
from modeling.actions.files import delete_dataset, delete_file
from modeling.models import Dataset, DatasetVersion, File, Job, RetentionRule
from saas.lib.errors import Refusal
from tenants import audit
from tenants.audit import Actor
from tenants.models import Tenant
from tenants.scope import scope

Kind = RetentionRule.Kind
MOST_DAYS = 3_650


def rules(tenant: Tenant) -> dict[str, int]:
    """kind -> days of the rules that are set; inside the scope."""
    return dict(RetentionRule.objects.of(tenant).values_list("kind", "days"))


def set_rule(tenant: Tenant, actor: Actor, kind: str, days: int | None, *, agreed: bool = False) -> None:
    """Change or (None) remove one rule. Raises Refusal when it would delete data within the hour and nobody agreed."""
    if kind not in Kind.values:
        raise Refusal(_("There is no such class of data."), param="kind")
    if days is not None and not 1 <= days <= MOST_DAYS:
        raise Refusal(_("Write 1 to 3,650 days."), param="days")
    before = rules(tenant).get(kind)
    if days == before:
        return
    if days is not None and not agreed and (due := count_due(tenant, kind, days)):
        raise Refusal(
            _("This rule would delete %(count)s of them within the hour. Tick the box if that is meant.")
            % {"count": due},
            param="agreed",
            code="not_confirmed",
        )
    rows = RetentionRule.objects.of(tenant).filter(kind=kind)
    if days is None:
        rows.delete()
    elif not rows.update(days=days, changed_at=timezone.now()):
        RetentionRule.objects.of(tenant).create(kind=kind, days=days)
    audit.record(tenant, actor, "retention.changed", None, kind=kind, days=days, before=before)


def count_due(tenant: Tenant, kind: str, days: int) -> int:
    """How many files, datasets or versions of this class are older than so many days."""
    return _due(tenant, kind, _cutoff(days)).count()


def apply_rules(tenant_id: uuid.UUID) -> int:
    """Delete what is past its time, each thing in a transaction of its own; returns how many. Repeats do no harm."""
    with scope(tenant_id):
        tenant = Tenant.objects.get(pk=tenant_id)
        due = [
            (kind, pk)
            for kind, days in rules(tenant).items()
            for pk in _due(tenant, kind, _cutoff(days)).values_list("pk", flat=True)
        ]
    return sum(_delete(tenant, kind, pk) for kind, pk in due)


def _cutoff(days: int) -> datetime:
    return timezone.now() - timedelta(days=days)


def _due(tenant: Tenant, kind: str, cutoff: datetime) -> QuerySet[Any]:
    """The files, datasets or versions of a class that came before `cutoff`."""
    if kind == Kind.BATCH:
        return File.objects.of(tenant).filter(
            purpose__in=File.KEPT_AS_IS, deleted_at=None, created_at__lt=cutoff
        )
    if kind == Kind.VERSIONS:
        newest = DatasetVersion.objects.of(tenant).filter(dataset=OuterRef("dataset")).order_by("-number")
        former = DatasetVersion.objects.of(tenant).exclude(segments=None).filter(created_at__lt=cutoff)
        return former.annotate(newest=Subquery(newest.values("number")[:1])).filter(number__lt=F("newest"))
    rows = Dataset.objects.of(tenant).filter(is_catalogue=kind == Kind.CATALOGUE, deleted_at=None)
    versions = DatasetVersion.objects.of(tenant).filter(dataset=OuterRef("pk")).order_by("-number")
    return rows.annotate(changed=Subquery(versions.values("created_at")[:1])).filter(changed__lt=cutoff)


def _delete(tenant: Tenant, kind: str, pk: uuid.UUID) -> bool:
    """Delete one thing; False when a hold, a job or a batch keeps it for now."""
    doing: Callable[[Tenant, uuid.UUID], bool] = {
        Kind.BATCH: _delete_one_file,
        Kind.VERSIONS: _delete_version,
    }.get(Kind(kind), _delete_dataset)
    try:
        with scope(tenant):
            return doing(tenant, pk)
    except Refusal:
        return False


def _delete_one_file(tenant: Tenant, pk: uuid.UUID) -> bool:
    file = File.objects.of(tenant).select_related("object").get(pk=pk)
    delete_file(file, audit.SYSTEM)
    return True


def _delete_dataset(tenant: Tenant, pk: uuid.UUID) -> bool:
    delete_dataset(tenant, audit.SYSTEM, Dataset.objects.of(tenant).get(pk=pk, deleted_at=None))
    return True


def _delete_version(tenant: Tenant, pk: uuid.UUID) -> bool:
    version = DatasetVersion.objects.of(tenant).select_related("dataset", "segments").get(pk=pk)
    holds.require_free(tenant, dataset=version.dataset)
    if Job.objects.of(tenant).filter(dataset_version=version, state__in=Job.OPEN).exists():
        return False
    destroy_segments(tenant, version)
    audit.record(tenant, audit.SYSTEM, "version.expired", version.dataset, number=version.number)
    return True
