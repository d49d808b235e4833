"""Which data made which model: versions of a dataset with the jobs, models and endpoints that came of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.utils.translation import ngettext

from modeling.models import Dataset, DatasetVersion, Endpoint, Job, ModelVersion
from modeling.queries import words
from tenants.models import Tenant

JOBS_SHOWN = 200  # of one dataset's picture, the newest


@dataclass(frozen=True)
class JobNode:
    """A job, the model it left behind, and the endpoints that answer from it."""

    public_id: str
    state: str
    task_words: str
    model: str
    short_id: str
    is_deleted: bool
    endpoints: list[str]


@dataclass(frozen=True)
class VersionNode:
    """A version, the file it took in, and its jobs."""

    version: DatasetVersion
    jobs: list[JobNode] = field(default_factory=list)

    @property
    def change_words(self) -> str:
        """What the version changed, in a few words; "" for one made of a file alone."""
        return change_words(self.version)


def change_words(version: DatasetVersion) -> str:
    """What a version changed, in a few words; "" for one made of a file alone."""
    counts = version.changes
    added, changed, removed = (counts.get(f"rows_{what}") or 0 for what in ("added", "changed", "removed"))
    parts = [
        (added, ngettext("%(n)s row added", "%(n)s rows added", added)),
        (changed, ngettext("%(n)s row changed", "%(n)s rows changed", changed)),
        (removed, ngettext("%(n)s row removed", "%(n)s rows removed", removed)),
    ]
    words = [text % {"n": f"{n:,}"} for n, text in parts if n]
    if erased := counts.get("people_erased"):
        words.append(
            ngettext(
                "%(n)s person was erased earlier and stays erased",
                "%(n)s people were erased earlier and stay erased",
                erased,
            )
            % {"n": f"{erased:,}"}
        )
    return ", ".join(words)


def of_dataset(tenant: Tenant, dataset: Dataset) -> list[VersionNode]:
    """The dataset's versions, the newest first, each with what was made of it."""
    versions = (
        DatasetVersion.objects.of(tenant).filter(dataset=dataset).select_related("file", "parent", "dataset")
    )
    return _nodes(tenant, versions.order_by("-number"))


def of_version(tenant: Tenant, version: DatasetVersion) -> VersionNode:
    """One version with what was made of it."""
    return _nodes(tenant, [version])[0]


def of_model(tenant: Tenant, model: ModelVersion) -> list[DatasetVersion]:
    """The versions behind a model: the one trained on, then its parents up to the first file."""
    found: list[DatasetVersion] = []
    job = Job.objects.of(tenant).filter(pk=model.job_id).first()
    at: UUID | None = job.dataset_version_id if job is not None else None
    while at is not None:
        version = DatasetVersion.objects.of(tenant).select_related("dataset", "file").get(pk=at)
        found.append(version)
        at = version.parent_id
    return found


def _nodes(tenant: Tenant, versions: Iterable[DatasetVersion]) -> list[VersionNode]:
    listed = list(versions)
    ids = [version.pk for version in listed]
    jobs = Job.objects.of(tenant).filter(dataset_version__in=ids) | Job.objects.of(tenant).filter(
        catalogue_version__in=ids
    )
    shown = list(jobs.order_by("-id")[:JOBS_SHOWN])
    models = {one.job_id: one for one in ModelVersion.objects.of(tenant).filter(job__in=shown)}
    names: dict[object, list[str]] = defaultdict(list)
    for name, at in Endpoint.objects.of(tenant).order_by("name").values_list("name", "version"):
        names[at].append(name)
    by_version: dict[object, list[JobNode]] = defaultdict(list)
    for job in shown:
        node = _job_node(job, models.get(job.pk), names)
        for version_id in {job.dataset_version_id, job.catalogue_version_id}:
            by_version[version_id].append(node)
    return [VersionNode(version, by_version[version.pk]) for version in listed]


def _job_node(job: Job, model: ModelVersion | None, names: dict[object, list[str]]) -> JobNode:
    return JobNode(
        public_id=job.public_id,
        state=job.state,
        task_words=words.task_words(job.task),
        model=model.name if model else "",
        short_id=model.short_id if model else "",
        is_deleted=model is not None and model.state == ModelVersion.State.DELETED,
        endpoints=names[model.pk] if model else [],
    )


def data_of_job(job: Job) -> dict[str, Any] | None:
    """What a job's body and a model's say of the data: dataset, version, keyed content hash."""
    version = job.dataset_version
    if version is None:
        return None
    return {
        "dataset": version.dataset.public_id,
        "version": version.number,
        "content_hash": version.content_hash,
        "rows": version.rows,
    }
