"""Small real jobs for the tests of this folder: a file of the clinic's rows, uploaded and inspected, and jobs on it."""

from __future__ import annotations

import csv
import io
import uuid
from typing import Any

import numpy as np
from django.db import connections, transaction
from django.db.models.functions import Now

from modeling.actions import inspection
from modeling.models import Dataset, File, Job
from modeling.packs import PACKS
from modeling.tasks.jobs import prepare_job, train_job
from tenants.models import Tenant
from tenants.scope import scope


def clinic_csv(rows: int = 600, *, chapters: int = 3, unit: bool = False, skip: int = 0) -> bytes:
    """`rows` rows of the clinic's sample from its first chapters; with `unit`, two rows share one patient_id."""
    sample = next(sample for sample in PACKS["medical"].samples if sample.task == "classification")
    reader = csv.DictReader(io.StringIO(sample.build().decode()))
    text, label = sample.columns["text"], sample.columns["label"]
    wanted: dict[str, list[dict[str, str]]] = {}
    for row in reader:
        if row[label] in wanted or len(wanted) < chapters:
            wanted.setdefault(row[label], []).append(row)
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["patient_id", "description", "chapter"] if unit else ["description", "chapter"])
    for number in range(skip, skip + rows):
        group = list(wanted.values())[number % len(wanted)]
        row = group[(number // len(wanted)) % len(group)]
        cells = [row[text], row[label]]
        writer.writerow([f"P{number // 2:06d}", *cells] if unit else cells)
    return out.getvalue().encode()


def words_csv(rows: int = 700, *, people: int = 0, seed: int = 0, start: int = 0) -> bytes:
    """Rows of four words whose class shows in them; with `people`, a person_id column names so many people."""
    random = np.random.default_rng(seed)
    lines = ["person_id,text,label" if people else "text,label"]
    for number in range(start, start + rows):
        label = number % 3
        words = " ".join(f"word{20 * label + int(draw)}" for draw in random.integers(0, 20, 4))
        line = f"{words} word{number % 60},class {label}"
        lines.append(f"person {number % people},{line}" if people else line)
    return "\n".join(lines).encode()


def uploaded(
    api: Any, tenant: Tenant, content: bytes, *, name: str = "clinic.csv", purpose: str = "fine-tune"
) -> str:
    """Upload through HTTP and inspect in this process; the file's public id."""
    answer = api.upload(name, content, purpose)
    assert answer.status_code == 200, answer.content
    file_id = answer.json()["id"]
    with scope(tenant):
        pk = File.objects.of(tenant).get(public_id=file_id).pk
    inspection.inspect_file(tenant.pk, pk)
    return str(file_id)


def started(api: Any, file_id: str, **body: Any) -> dict[str, Any]:
    """Start a job through HTTP; its body."""
    answer = api.post("/v1/fine_tuning/jobs", {"training_file": file_id, **body})
    assert answer.status_code == 200, answer.content
    return dict(answer.json())


def row_of(tenant: Tenant, public_id: str) -> Job:
    """The job's row."""
    with scope(tenant):
        return (
            Job.objects.of(tenant)
            .select_related("dataset_version__dataset", "model_version")
            .get(public_id=public_id)
        )


def train(tenant: Tenant, public_id: str) -> Job:
    """Run the job's task in this process and return its row."""
    job = row_of(tenant, public_id)
    train_job(tenant_id=str(tenant.pk), job_id=str(job.pk))
    return row_of(tenant, public_id)


def prepare(tenant: Tenant, public_id: str) -> Job:
    """Run the preparing task in this process and return the row."""
    prepare_job(tenant_id=str(tenant.pk), job_id=str(row_of(tenant, public_id).pk))
    return row_of(tenant, public_id)


def dataset_of(tenant: Tenant, public_id: str) -> Dataset:
    """The dataset that a job reads."""
    version = row_of(tenant, public_id).dataset_version
    assert version is not None
    return version.dataset


def as_owner(tenant: Tenant, statement: str, *values: Any) -> int:
    """Run a statement as the tables' owner inside the tenant: what an intruder could do; rows changed."""
    with transaction.atomic(using="migrator"), connections["migrator"].cursor() as cursor:
        cursor.execute("SELECT set_config('app.tenant_id', %s, true)", [str(tenant.pk)])
        cursor.execute(statement, values)
        return int(cursor.rowcount)


def lease_runs_out(tenant: Tenant, job_id: uuid.UUID) -> None:
    """Move a running job's lease into the past, as if its worker had been silent for a minute."""
    with scope(tenant):
        Job.objects.of(tenant).filter(pk=job_id).update(lease_until=Now())
