"""What the pages of batches show: rows of the list, one batch in words, the form's files, the call that starts one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils.translation import gettext as _

from modeling.actions.batches import ENDPOINTS
from modeling.models import Batch, Endpoint, File
from modeling.queries import model_pages
from modeling.queries.table_examples import features_of
from tenants.models import Tenant
from tenants.scope import TenantQuerySet

FILES_OFFERED = 50
_STOPPED = (Batch.State.CANCELLED, Batch.State.EXPIRED)
_WORDS = {
    "/v1/classify": lambda: _("Classify texts or rows"),
    "/v1/recommend": lambda: _("Recommend items"),
    "/v1/embeddings": lambda: _("Embed texts"),
    "/v1/chat/completions": lambda: _("Continue conversations"),
}


@dataclass(frozen=True)
class BatchRow:
    """One batch as pages print it."""

    public_id: str
    name: str  # of its input file
    endpoint: str
    task: str
    state: str
    state_words: str
    pill: str  # the state whose colour it has
    is_open: bool
    may_cancel: bool
    total: int
    completed: int
    failed: int
    done: int  # answered or failed; of one that was stopped, answered
    is_stopped: bool  # before its end: what is counted as failed was not run
    created_at: datetime
    ended_at: datetime | None
    expires_at: datetime
    errors: list[dict[str, Any]]
    input_file: File
    output_file: File | None
    error_file: File | None


def batches_of(tenant: Tenant) -> TenantQuerySet[Batch]:
    """The tenant's batches with their files."""
    return Batch.objects.of(tenant).select_related("file", "output_file", "error_file")


def batch_row(batch: Batch) -> BatchRow:
    """A batch for the list and its page."""
    pills = {
        "completed": "succeeded",
        "validating": "uploaded",
        "in_progress": "running",
        "finalizing": "running",
    }
    return BatchRow(
        public_id=batch.public_id,
        name=batch.file.name,
        endpoint=batch.endpoint,
        task=_WORDS[batch.endpoint](),
        state=batch.state,
        state_words=batch.get_state_display(),
        pill=pills.get(batch.state, batch.state),
        is_open=batch.state in Batch.OPEN,
        may_cancel=batch.state in (Batch.State.VALIDATING, Batch.State.IN_PROGRESS),
        total=batch.total,
        completed=batch.completed,
        failed=batch.failed,
        done=batch.completed + (0 if batch.state in _STOPPED else batch.failed),
        is_stopped=batch.state in _STOPPED,
        created_at=batch.created_at,
        ended_at=batch.ended_at,
        expires_at=batch.expires_at,
        errors=batch.errors,
        input_file=batch.file,
        output_file=_there(batch.output_file),
        error_file=_there(batch.error_file),
    )


def _there(file: File | None) -> File | None:
    return None if file is None or file.deleted_at is not None else file


def request_files(tenant: Tenant) -> list[File]:
    """Uploaded files of requests, the newest first."""
    rows = File.objects.of(tenant).filter(purpose=File.Purpose.BATCH, deleted_at=None)
    return list(rows.order_by("-id")[:FILES_OFFERED])


def endpoint_choices() -> list[tuple[str, str]]:
    """Each call that a batch can make, in words."""
    return [(path, _WORDS[path]()) for path in ENDPOINTS]


def line_parts() -> list[tuple[str, str]]:
    """The parts of a line in words."""
    return [
        ("custom_id", _("your name for the request, once in the file")),
        ("method", "POST"),
        ("url", _("the call, the same on every line")),
        ("body", _("what you would send to the call, with the model’s name")),
    ]


def snippets(tenant: Tenant, base_url: str) -> list[tuple[str, str]]:
    """How a program starts a batch and fetches its answers: with curl, and with the official client."""
    path, body = _example(tenant)
    request = {"custom_id": "1", "method": "POST", "url": path, "body": body}
    line = json.dumps(request, ensure_ascii=False)
    curl = f"""cat > requests.jsonl <<'END'
{line}
END
FILE=$(curl -s {base_url}/v1/files -H "Authorization: Bearer $CLOISTER_API_KEY" \\
  -F purpose=batch -F file=@requests.jsonl | jq -r .id)
BATCH=$(curl -s {base_url}/v1/batches -H "Authorization: Bearer $CLOISTER_API_KEY" \\
  -H "Content-Type: application/json" \\
  -d '{{"input_file_id": "'$FILE'", "endpoint": "{path}", "completion_window": "24h"}}' | jq -r .id)

# Later: its state, and once it is completed the answers.
curl -s {base_url}/v1/batches/$BATCH -H "Authorization: Bearer $CLOISTER_API_KEY" | jq .status,.output_file_id
curl -s {base_url}/v1/files/<output_file_id>/content -H "Authorization: Bearer $CLOISTER_API_KEY" -o answers.jsonl"""
    python = f"""import os
import time
from openai import OpenAI

client = OpenAI(base_url="{base_url}/v1", api_key=os.environ["CLOISTER_API_KEY"])
file = client.files.create(file=open("requests.jsonl", "rb"), purpose="batch")
batch = client.batches.create(
    input_file_id=file.id, endpoint="{path}", completion_window="24h"
)
while batch.status in ("validating", "in_progress", "finalizing"):
    time.sleep(10)
    batch = client.batches.retrieve(batch.id)
if batch.output_file_id:
    print(client.files.content(batch.output_file_id).text)"""
    return [("curl", curl), ("Python", python)]


def _example(tenant: Tenant) -> tuple[str, dict[str, Any]]:
    """A call and its body that work here and now: of the newest endpoint, or of a base model without one."""
    newest = Endpoint.objects.of(tenant).select_related("version").order_by("-pk").first()
    if newest is None:
        return "/v1/embeddings", {"model": "minilm-l6", "input": model_pages.TEXTS[tenant.pack]}
    version = newest.version
    items, features = model_pages.known_items(version), features_of(version)
    sample = model_pages.sample_body(tenant, version.task, items, features)
    return f"/v1/{model_pages.PATHS.get(version.task, 'classify')}", {"model": newest.name} | sample
