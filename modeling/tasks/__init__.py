"""Background tasks, named `modeling.<verb>_<noun>`; this package imports every module so that Celery finds them."""

from __future__ import annotations

from modeling.tasks import (
    batches,
    datasets,
    jobs,
    predictions,
    quality,
    retention,
    served,
    tenants,
    uploads,
    versions,
)

__all__ = [
    "batches",
    "datasets",
    "jobs",
    "predictions",
    "quality",
    "retention",
    "served",
    "tenants",
    "uploads",
    "versions",
]
