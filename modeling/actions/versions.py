"""Model versions: made from what a run left behind, and deleted by destroying their key."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext as _

from modeling.actions import cards, receipts
from modeling.actions.privacy import Cost
from modeling.core.types import Trained
from modeling.models import Endpoint, Job, ModelVersion
from modeling.models.versions import short_id
from saas.lib.errors import Conflict, NotFound
from tenants import audit, vault
from tenants.actions import announce_revocation
from tenants.audit import Actor
from tenants.models import Tenant, VaultObject


def version_name(tenant: Tenant, job: Job, short: str) -> str:
    """`ft:<base>:<tenant slug>:<suffix>:<short id>`."""
    return f"ft:{job.base}:{tenant.slug}:{job.suffix}:{short}"


@dataclass(frozen=True)
class Made:
    """What a run left behind: its artefact sealed in the vault, the plaintext's SHA-256, and what it took."""

    trained: Trained
    cost: Cost
    sealed: VaultObject
    sha256: str
    seconds: float
    cpu_seconds: float | None = None


def create_version(tenant: Tenant, job: Job, made: Made) -> ModelVersion:
    """The version of a finished run, with its card and receipt; in the owner's fenced transaction."""
    short = short_id()
    name = version_name(tenant, job, short)
    trained, cost = made.trained, made.cost
    compute = cards.Compute(made.seconds, made.cpu_seconds)
    card = cards.build_card(tenant, job, trained, cost, name=name, sha256=made.sha256, compute=compute)
    return ModelVersion.objects.of(tenant).create(
        name=name,
        short_id=short,
        job=job,
        base=job.base,
        task=job.task,
        method=job.method,
        config=trained.config,
        card=card,
        receipt=receipts.build_receipt(
            tenant, job, trained, cost, name=name, sha256=made.sha256, card=card, finished_at=timezone.now()
        ),
        object=made.sealed,
    )


def delete_version(tenant: Tenant, actor: Actor, version: ModelVersion) -> None:
    """Shred the weights for good; the row, the card and the ledger stay. Raises Conflict while an endpoint uses it."""
    using = Q(version=version) | Q(canary=version) | Q(shadow=version)
    used = list(Endpoint.objects.of(tenant).filter(using).values_list("name", flat=True))
    if used:
        raise Conflict(
            _(
                "The endpoint %(name)s uses this version, or tries it out. Change or delete the endpoint first."
            )
            % {"name": used[0]},
            code="version_in_use",
        )
    changed = ModelVersion.objects.of(tenant).filter(pk=version.pk, state=ModelVersion.State.READY).update(
        state=ModelVersion.State.DELETED, deleted_at=timezone.now()
    )  # fmt: skip
    if not changed:
        return
    if version.object is not None:
        vault.destroy(version.object)
    audit.record(tenant, actor, "model.delete", version)
    announce_revocation("version", tenant, str(version.pk))


def usable_version(tenant: Tenant, name: str) -> ModelVersion:
    """The tenant's model by its full name; raises NotFound for strangers', unknown and deleted ones alike."""
    found = ModelVersion.objects.of(tenant).filter(name=name, state=ModelVersion.State.READY).first()
    if found is None:
        raise NotFound(_("There is no such model."), code="model_not_found", param="model")
    return found
