"""What a restored backup brought back of tenants, datasets and people is destroyed again; loaded when Django starts."""

from __future__ import annotations

import uuid

from django.db.models.functions import Coalesce, Now

from modeling.actions import quality, tenant_erasing
from modeling.models.chain import VersionDiff
from modeling.models.datasets import Dataset, DatasetKey, DatasetVersion, UnitKey
from tenants import tombstones


@tombstones.applies("dataset")
def destroy_dataset_again(tenant_id: uuid.UUID, reference: str) -> None:
    """The key of a dataset and those of everyone in it; the row stays, for what was spent on it."""
    UnitKey.objects.of(tenant_id).filter(dataset_id=reference).update(wrapped=b"")
    DatasetKey.objects.of(tenant_id).filter(dataset_id=reference).delete()
    Dataset.objects.of(tenant_id).filter(pk=reference).update(deleted_at=Coalesce("deleted_at", Now()))
    versions = DatasetVersion.objects.of(tenant_id).filter(dataset_id=reference)
    versions.update(labels=[], errors=[])
    VersionDiff.objects.of(tenant_id).filter(dataset_id=reference).delete()
    for version in versions:
        quality.forget(version)


@tombstones.applies("unit")
def destroy_unit_again(tenant_id: uuid.UUID, reference: str) -> None:
    """One person's key in one dataset."""
    dataset_id, handle = reference.split(":")
    rows = UnitKey.objects.of(tenant_id).filter(dataset_id=dataset_id, handle=bytes.fromhex(handle))
    rows.update(wrapped=b"")
    VersionDiff.objects.of(tenant_id).filter(dataset_id=dataset_id).delete()
    for dataset in Dataset.objects.of(tenant_id).filter(pk=dataset_id):  # none: younger than the backup
        quality.renew(dataset)


@tombstones.applies("tenant")
def erase_tenant_again(tenant_id: uuid.UUID, reference: str) -> None:
    """A whole tenant: its keys, its rows and its names."""
    tenant_erasing.erase_again(tenant_id)
