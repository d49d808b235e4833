"""The end of a batch: its slices become one output file and one error file, and are destroyed."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

from django.utils import timezone

from modeling.models import Batch, BatchSlice, File
from saas.lib.errors import Refusal
from tenants import audit, vault
from tenants.models import Tenant, VaultObject
from tenants.scope import scope

if TYPE_CHECKING:
    from modeling.actions.batch_running import Lease

RENEW_SECONDS = 15.0
_COPY_BYTES = 1 << 18


def input_of(batch: Batch) -> VaultObject:
    """The sealed requests; they cannot be deleted while the batch is open."""
    stored: VaultObject | None = batch.file.object
    if stored is None:
        raise Refusal("The file of this batch was deleted.", status=410, code="gone")
    return stored


def finish(lease: Lease) -> None:
    """Write the files, slice by slice in the order of the input, and end the batch."""
    tenant, batch = lease.tenant, lease.batch
    with scope(tenant):
        slices = list(
            BatchSlice.objects.of(tenant).filter(batch=batch).select_related("object").order_by("number")
        )
    with ExitStack() as stack:
        outputs = stack.enter_context(vault.create(tenant, "batch_file"))
        errors = stack.enter_context(vault.create(tenant, "batch_file"))
        renewed = time.monotonic()
        for one in slices:
            if one.object is not None:
                _copy(one, one.object, outputs, errors)
            if time.monotonic() - renewed >= RENEW_SECONDS:  # else another worker begins the same anew
                lease.renew()
                renewed = time.monotonic()
        with scope(tenant):
            rows = lease.rows().filter(state=Batch.State.FINALIZING)
            if not rows.update(state=batch.ends_as, ended_at=timezone.now(), lease_until=None):
                return
            lease.rows().update(
                output_file=_file(tenant, batch, outputs, "output"),
                error_file=_file(tenant, batch, errors, "error"),
            )
            BatchSlice.objects.of(tenant).filter(batch=batch).delete()
            for one in slices:
                if one.object is not None:
                    vault.destroy(one.object)
            audit.record(
                tenant,
                audit.SYSTEM,
                f"batch.{batch.ends_as}",
                batch,
                requests=batch.total,
                answered=batch.completed,
                failed=batch.failed,
            )


def fail(lease: Lease, errors: list[dict[str, Any]]) -> None:
    """End a batch that cannot be run; what was answered is destroyed with it."""
    tenant, batch = lease.tenant, lease.batch
    with scope(tenant):
        if not lease.rows().update(
            state=Batch.State.FAILED, errors=errors, ended_at=timezone.now(), lease_until=None
        ):
            return
        slices = list(BatchSlice.objects.of(tenant).filter(batch=batch).select_related("object"))
        BatchSlice.objects.of(tenant).filter(batch=batch).delete()
        for one in slices:
            if one.object is not None:
                vault.destroy(one.object)
        audit.record(tenant, audit.SYSTEM, "batch.failed", batch, errors=len(errors))


def _copy(
    one: BatchSlice, stored: VaultObject, outputs: vault.VaultWriter, errors: vault.VaultWriter
) -> None:
    with closing(vault.open(stored)) as source:
        left = one.output_bytes
        while left and (block := source.read(min(left, _COPY_BYTES))):
            outputs.write(block)
            left -= len(block)
        while block := source.read(_COPY_BYTES):
            errors.write(block)


def _file(tenant: Tenant, batch: Batch, writer: vault.VaultWriter, kind: str) -> File | None:
    """The file of a writer that took something; inside the scope. Not held to the plan's storage: it was paid for."""
    if not writer.size_bytes:
        return None
    stored = writer.finish()
    return File.objects.of(tenant).create(
        name=f"{batch.public_id}_{kind}.jsonl",
        purpose=File.Purpose.BATCH_OUTPUT,
        format="jsonl",
        size_bytes=stored.size_bytes,
        status=File.Status.PROCESSED,
        object=stored,
        created_by=batch.public_id,
    )
