"""Batches: start one from a file of requests, cancel it."""

from __future__ import annotations

from typing import Any

from django.db import connection
from django.utils import timezone
from django.utils.translation import gettext as _

from billing import limits
from modeling.batch_lines import FILE_BYTES_MOST
from modeling.models import Batch, File
from saas.lib import background
from saas.lib.errors import Conflict, NotFound, Refusal
from tenants import audit
from tenants.audit import Actor
from tenants.models import Tenant

ENDPOINTS = ("/v1/classify", "/v1/recommend", "/v1/embeddings", "/v1/chat/completions")
METADATA_MOST, METADATA_KEY, METADATA_VALUE = 16, 64, 512


def start(
    tenant: Tenant, actor: Actor, *, file_id: str, endpoint: str, metadata: dict[str, Any] | None = None
) -> Batch:
    """Have a file's requests answered within a day; inside the scope. Raises Refusal, LimitReached, NotFound."""
    limits.require_writable(tenant)
    if endpoint not in ENDPOINTS:
        raise Refusal(
            _("endpoint is one of %(all)s.") % {"all": ", ".join(ENDPOINTS)},
            param="endpoint",
            code="invalid_endpoint",
        )
    check_metadata(metadata or {})
    file = File.objects.of(tenant).filter(public_id=file_id, deleted_at=None).first()
    if file is None:
        raise NotFound(_("There is no such file."), param="input_file_id")
    if file.purpose != File.Purpose.BATCH:
        raise Refusal(
            _("Upload the requests with purpose batch."), param="input_file_id", code="invalid_purpose"
        )
    if file.size_bytes > FILE_BYTES_MOST:
        raise Refusal(
            _("A batch file has at most %(most)s MiB.") % {"most": FILE_BYTES_MOST >> 20},
            param="input_file_id",
            code="file_too_large",
        )
    _one_at_a_time(tenant)
    open_now = Batch.objects.of(tenant).filter(state__in=Batch.OPEN).count()
    limits.require(tenant, "open_batches", open_now + 1)
    batch = Batch.objects.of(tenant).create(
        file=file, endpoint=endpoint, metadata=metadata or {}, created_by=actor.label[:200]
    )
    audit.record(tenant, actor, "batch.created", batch, file=file.public_id, endpoint=endpoint)
    background.enqueue("modeling.run_batches")
    return batch


def check_metadata(metadata: dict[str, Any]) -> None:
    """OpenAI's bounds: 16 pairs of text, names to 64 characters, values to 512; raises Refusal."""
    is_text = all(isinstance(value, str) and "\0" not in name + value for name, value in metadata.items())
    is_short = all(
        len(name) <= METADATA_KEY and len(str(metadata[name])) <= METADATA_VALUE for name in metadata
    )
    if len(metadata) > METADATA_MOST or not is_text or not is_short:
        raise Refusal(
            _("metadata holds at most 16 texts of 512 characters under names of 64."), param="metadata"
        )


def _one_at_a_time(tenant: Tenant) -> None:
    """Two requests at once may not both be the last batch that the plan holds."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"batches:{tenant.pk}"])


def cancel(tenant: Tenant, actor: Actor, batch: Batch) -> None:
    """Stop after the lines under way; what was answered stays. Raises Conflict once the batch is ending or over."""
    rows = Batch.objects.of(tenant).filter(
        pk=batch.pk, state__in=(Batch.State.VALIDATING, Batch.State.IN_PROGRESS)
    )
    if rows.update(state=Batch.State.CANCELLING, cancelling_at=timezone.now()):
        audit.record(tenant, actor, "batch.cancelled", batch)
        background.enqueue("modeling.run_batches")
        return
    batch.refresh_from_db(fields=["state"])
    if batch.state != Batch.State.CANCELLING:
        raise Conflict(_("This batch has ended or is just ending."), code="batch_ended")
