"""Rows of the product: files and datasets, jobs and events, the privacy ledger, model versions, endpoints."""

from __future__ import annotations

from modeling.models.datasets import Dataset, DatasetKey, DatasetVersion, File, Inspection, UnitKey
from modeling.models.endpoints import Endpoint, EndpointChange
from modeling.models.jobs import Job, JobEvent, RememberedAnswer, Worker
from modeling.models.paces import Pace
from modeling.models.privacy import LedgerHead, PrivacyAccount, PrivacyEntry
from modeling.models.versions import ModelVersion

__all__ = [
    "Dataset",
    "DatasetKey",
    "DatasetVersion",
    "Endpoint",
    "EndpointChange",
    "File",
    "Inspection",
    "Job",
    "JobEvent",
    "LedgerHead",
    "ModelVersion",
    "Pace",
    "PrivacyAccount",
    "PrivacyEntry",
    "RememberedAnswer",
    "UnitKey",
    "Worker",
]
