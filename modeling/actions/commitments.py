"""Each attempt commits to the rows it loads before it trains on them: the receipt signs what this wrote down."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext as _

from modeling.actions import running
from modeling.actions.rows import load_training_data
from modeling.actions.running import Lease
from modeling.core import commitment
from modeling.core.types import Plan, TrainingData
from modeling.models import DatasetVersion, Job, ModelVersion
from modeling.plans import load_plan
from modeling.rows import read_handles
from modeling.units import handle_key, person_handle
from saas.lib.errors import Conflict, NotFound, Refusal
from tenants import vault
from tenants.models import Tenant
from tenants.scope import scope

LABEL = "commitment"


class PeopleChanged(Exception):
    """A person was erased between two reads of the same rows: the next attempt reads them anew."""


def record(
    lease: Lease, tenant: Tenant, job: Job, plan: Plan, version: DatasetVersion, data: TrainingData
) -> None:
    """Write the commitment to the job's row, under its lease; raises Fenced when another worker has the job.

    The same on every worker. Where an earlier attempt read other rows (a person was erased meanwhile), its commitment
    stays beside the new one.
    """
    handles = list(read_handles(version))
    try:
        found = commitment.commit(
            plan.recipe, data, handles, key=_key(tenant), job=job.public_id, rows=plan.shape.rows
        )
    except ValueError as error:
        raise PeopleChanged(str(error)) from error
    with scope(tenant):
        running.update(lease, commitment=_with_earlier(running.owned(lease).commitment, found))


def _with_earlier(before: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in before.items() if key != "earlier"}
    earlier = list(before.get("earlier", []))
    if kept and kept != found:
        earlier.append(kept)
    return {**found, "earlier": earlier} if earlier else found


def _key(tenant: Tenant) -> bytes:
    return vault.derive(tenant, LABEL)


def prove(tenant: Tenant, version: ModelVersion, person: str) -> dict[str, Any]:
    """Proof that one person's rows are among those a model's receipt commits to; outside a transaction.

    Raises Refusal when each row is one person, NotFound for somebody who took no part, Conflict when the rows are gone
    or no longer the ones that were used.
    """
    with scope(tenant):
        found = "dataset_version__dataset", "catalogue_version__dataset"
        job = Job.objects.of(tenant).select_related(*found).get(pk=version.job_id)
    plan, rows, catalogue = load_plan(job.plan), job.dataset_version, job.catalogue_version
    if not plan.recipe.unit:
        raise Refusal(
            _("In this data each row is one person, without a name to prove anything about."), param="person"
        )
    if rows is None or rows.segments_id is None:
        raise Conflict(_("The rows of this model were deleted: nothing can be proven any more."), code="gone")
    data = load_training_data(tenant, plan.recipe, job.recipe["columns"], rows, catalogue)
    handles, key = list(read_handles(rows)), _key(tenant)
    made = commitment.commit(plan.recipe, data, handles, key=key, job=job.public_id, rows=plan.shape.rows)
    if {**made, "earlier": None} != {**job.commitment, "earlier": None}:
        raise Conflict(
            _(
                "The rows are no longer those of the run (a person was erased since), so nothing can be proven."
            ),
            code="rows_changed",
        )
    handle = person_handle(handle_key(tenant), person)
    try:
        return commitment.prove(plan.recipe, data, handles, key=key, job=job.public_id, handle=handle)
    except KeyError:
        raise NotFound(_("Nobody of this name is in the data of this model."), param="person") from None
