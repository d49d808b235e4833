"""Privacy accounts: one per lineage of people, opened at its first job, merged when two turn out to share people."""

from __future__ import annotations

from collections.abc import Iterable

from django.db.models import Q
from django.utils.translation import gettext as _

from modeling.actions.datasets import overlapping_datasets, sharing_rows
from modeling.core.types import Plan
from modeling.models import Dataset, DatasetVersion, Job, PrivacyAccount
from modeling.packs import PACKS
from saas.lib.errors import Conflict
from tenants.models import Tenant

ROW_UNIT = "row"  # each row is one person
Mode = DatasetVersion.Mode


def account_for(tenant: Tenant, version: DatasetVersion, plan: Plan) -> PrivacyAccount:
    """The account of the version's lineage, locked FOR UPDATE: opened, joined or merged as its people demand.

    The caller holds the ledger head's lock, so that two first jobs on shared people cannot open two accounts. Raises
    Conflict for a private job on the same rows by another unit: its cost for one of the old units is not known.
    """
    dataset = version.dataset
    sharing = [dataset, *overlapping_datasets(dataset)]
    found = _locked(tenant, {one.account_id for one in sharing if one.account_id is not None})
    if plan.mechanisms:
        _require_unit(tenant, dataset, found, plan.recipe.unit or ROW_UNIT)
    account = found[0] if found else _open(tenant, dataset, plan)
    for other in found[1:]:
        _merge(tenant, into=account, other=other)
    _join(tenant, account, sharing)
    if (
        plan.delta < account.delta
    ):  # more people have come in: the lineage keeps the smallest delta of its jobs
        account.delta = plan.delta
        account.save(update_fields=["delta"])
    return account


def _require_unit(tenant: Tenant, dataset: Dataset, found: Iterable[PrivacyAccount], unit: str) -> None:
    """The same rows have one unit: a person's budget cannot be counted in jobs that hide a single row of theirs."""
    others = [account for account in found if not account.no_bound and account.unit_label != unit]
    if not others:
        return
    same_rows = Dataset.objects.of(tenant).filter(pk__in=sharing_rows(dataset))
    taken = set(same_rows.values_list("account_id", flat=True))
    for account in others:
        if account.pk in taken:
            raise Conflict(
                _(
                    "These people's records were already used in a private job with %(unit)s as the unit, and it cannot"
                    " change: name the same column (or each row, if it says row)."
                )
                % {"unit": account.unit_label},
                param="privacy.unit",
                code="unit_fixed",
            )


def unite(tenant: Tenant, dataset: Dataset, source: Dataset) -> None:
    """One lineage for two datasets whose rows become one; the caller holds the ledger head's lock."""
    found = _locked(tenant, {one.account_id for one in (dataset, source) if one.account_id is not None})
    for other in found[1:]:
        _merge(tenant, into=found[0], other=other)
    if found:
        _join(tenant, found[0], [dataset, source])


def _locked(tenant: Tenant, ids: Iterable[object]) -> list[PrivacyAccount]:
    """The live accounts behind these ids, oldest first, locked."""
    accounts = PrivacyAccount.objects.of(tenant).select_for_update()
    return list(accounts.filter(pk__in=list(ids), merged_into=None).order_by("pk"))


def _open(tenant: Tenant, dataset: Dataset, plan: Plan) -> PrivacyAccount:
    account = PrivacyAccount.objects.of(tenant).create(
        unit_label=plan.recipe.unit or ROW_UNIT,
        lifetime_epsilon=PACKS[dataset.pack].lifetime_epsilon,
        delta=plan.delta,
    )
    return PrivacyAccount.objects.of(tenant).select_for_update().get(pk=account.pk)


def _merge(tenant: Tenant, *, into: PrivacyAccount, other: PrivacyAccount) -> None:
    """Two lineages share people: the stricter budget and delta hold, and what either spent counts for both."""
    into.lifetime_epsilon = min(into.lifetime_epsilon, other.lifetime_epsilon)
    into.delta = min(into.delta, other.delta)
    into.no_bound = into.no_bound or other.no_bound
    into.is_parallel = into.is_parallel and other.is_parallel and into.unit_label == other.unit_label
    into.save(update_fields=["lifetime_epsilon", "delta", "no_bound", "is_parallel"])
    accounts = PrivacyAccount.objects.of(tenant)
    accounts.filter(pk=other.pk).update(merged_into=into)
    accounts.filter(merged_into=other.pk).update(merged_into=into)
    Dataset.objects.of(tenant).filter(account=other).update(account=into)


def _join(tenant: Tenant, account: PrivacyAccount, sharing: Iterable[Dataset]) -> None:
    """Put datasets without an account of their own under this one."""
    sharing = list(sharing)
    used = Job.objects.of(tenant).filter(dataset_version__dataset__in=sharing)
    is_shared = bool({*used.values_list("dataset_version__dataset", flat=True)} - {sharing[0].pk})
    for dataset in sharing:
        label = dataset.unit_column or ROW_UNIT
        is_other = dataset.unit_fixed and label != account.unit_label
        if account.is_parallel and (is_other or (is_shared and _may_stand_elsewhere(tenant, dataset))):
            account.is_parallel = False
            account.save(update_fields=["is_parallel"])
    ids = [dataset.pk for dataset in sharing]
    Dataset.objects.of(tenant).filter(pk__in=ids, account=None).update(account=account)


def _may_stand_elsewhere(tenant: Tenant, dataset: Dataset) -> bool:
    """Whether rows that are one person each may have another handle, and side of the split, in another dataset.

    A handle comes of the row as it first was: not so where rows were joined, put in place, masked or read anew since.
    """
    if dataset.unit_column or dataset.is_catalogue:
        return False
    moved = Q(mode__in=(*DatasetVersion.CHAINED, Mode.READ)) | Q(personal_data__rows_masked__gt=0)
    return DatasetVersion.objects.of(tenant).filter(moved, dataset=dataset).exists()


def family(tenant: Tenant, account: PrivacyAccount) -> list[object]:
    """The ids of the account and of all that were merged into it."""
    merged = PrivacyAccount.objects.of(tenant).filter(merged_into=account.pk)
    return [account.pk, *merged.values_list("pk", flat=True)]
