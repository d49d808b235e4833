"""Legal holds: an owner keeps data that would otherwise be deleted, and says why; only an owner lets go of it."""

from __future__ import annotations

from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext as _

from modeling.models import Dataset, DatasetVersion, File, LegalHold
from saas.lib.errors import Conflict, Refusal
from tenants import audit
from tenants.audit import Actor
from tenants.models import Tenant
from tenants.scope import TenantQuerySet

REASON_CHARACTERS = 300


def standing(tenant: Tenant) -> TenantQuerySet[LegalHold]:
    """The holds that stand, newest first."""
    rows = LegalHold.objects.of(tenant).filter(released_at=None)
    return rows.select_related("file", "dataset").order_by("-id")


def place(
    tenant: Tenant, actor: Actor, *, reason: str, file: File | None = None, dataset: Dataset | None = None
) -> LegalHold:
    """Hold one file, one dataset, or all of the tenant's data; inside the scope. Raises Refusal without a reason."""
    hold = LegalHold.objects.of(tenant).create(
        file=file, dataset=dataset, reason=_checked(reason), placed_by=actor.label[:200]
    )
    audit.record(tenant, actor, "hold.placed", hold, covers=covered(hold), reason=hold.reason)
    return hold


def release(tenant: Tenant, actor: Actor, hold: LegalHold, *, reason: str) -> None:
    """Let go. What is past its time goes with the next run of the retention rules. Raises Refusal and Conflict."""
    why = _checked(reason)
    rows = LegalHold.objects.of(tenant).filter(pk=hold.pk, released_at=None)
    if not rows.update(released_at=timezone.now(), released_by=actor.label[:200], release_reason=why):
        raise Conflict(_("This hold was released before."), code="hold_released")
    audit.record(tenant, actor, "hold.released", hold, covers=covered(hold), reason=why)


def covered(hold: LegalHold) -> str:
    """The public id of what a hold covers; "everything" without one."""
    held = hold.file or hold.dataset
    return held.public_id if held is not None else "everything"


def is_held(tenant: Tenant, *, file: File | None = None, dataset: Dataset | None = None) -> bool:
    """Whether a hold covers this file or dataset; see require_free."""
    return _covering(tenant, file, dataset).exists()


def require_nothing_held(tenant: Tenant) -> None:
    """Raise Conflict while all of the tenant's data is held: then the log of predictions stays, too."""
    _refuse(standing(tenant).filter(file=None, dataset=None).first())


def require_free(tenant: Tenant, *, file: File | None = None, dataset: Dataset | None = None) -> None:
    """Raise Conflict while a hold covers this file or dataset; with neither, while any hold stands at all.

    A hold on a file covers the datasets made of it, and a hold on a dataset the files that it was made of.
    """
    _refuse(_covering(tenant, file, dataset).first())


def _refuse(hold: LegalHold | None) -> None:
    if hold is not None:
        raise Conflict(
            _("A legal hold keeps this: “%(reason)s”. An owner can release it under Data, Retention.")
            % {"reason": hold.reason},
            code="legal_hold",
        )


def _covering(tenant: Tenant, file: File | None, dataset: Dataset | None) -> TenantQuerySet[LegalHold]:
    rows = standing(tenant)
    if file is None and dataset is None:
        return rows
    versions = DatasetVersion.objects.of(tenant)
    versions = versions.filter(file=file) if file is not None else versions.filter(dataset=dataset)
    pairs = list(versions.values_list("dataset_id", "file_id"))
    files = {pair[1] for pair in pairs} | ({file.pk} if file is not None else set())
    datasets = {pair[0] for pair in pairs} | ({dataset.pk} if dataset is not None else set())
    return rows.filter(Q(file=None, dataset=None) | Q(file__in=files) | Q(dataset__in=datasets))


def _checked(reason: str) -> str:
    reason = reason.strip()
    if not reason:
        raise Refusal(_("Write the reason: an auditor will read it."), param="reason", code="reason_missing")
    return reason[:REASON_CHARACTERS]
