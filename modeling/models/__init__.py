"""Rows of the product: files, datasets, batches, jobs and events, the privacy ledger, model versions, endpoints."""

from __future__ import annotations

from modeling.models.batches import Batch, BatchSlice
from modeling.models.chain import Erasure, VersionChange, VersionDiff
from modeling.models.datasets import Dataset, DatasetKey, DatasetVersion, File, Inspection, UnitKey
from modeling.models.endpoints import DefaultRules, Endpoint, EndpointChange, PersonalData, ShadowDay
from modeling.models.jobs import Job, JobEvent, RememberedAnswer, Worker
from modeling.models.paces import Pace
from modeling.models.personal import PersonalPolicy
from modeling.models.predictions import Prediction, PredictionKey
from modeling.models.privacy import LedgerHead, PrivacyAccount, PrivacyEntry
from modeling.models.quality import QualityReport
from modeling.models.recommendations import CountedEvent, RecommendedDay
from modeling.models.retention import LegalHold, RetentionRule
from modeling.models.served import ServedMinutes
from modeling.models.uploads import Upload, UploadPart
from modeling.models.versions import ModelVersion

__all__ = [
    "Batch",
    "BatchSlice",
    "CountedEvent",
    "Dataset",
    "DatasetKey",
    "DatasetVersion",
    "DefaultRules",
    "Endpoint",
    "EndpointChange",
    "Erasure",
    "File",
    "Inspection",
    "Job",
    "JobEvent",
    "LedgerHead",
    "LegalHold",
    "ModelVersion",
    "Pace",
    "PersonalData",
    "PersonalPolicy",
    "Prediction",
    "PredictionKey",
    "PrivacyAccount",
    "PrivacyEntry",
    "QualityReport",
    "RecommendedDay",
    "RememberedAnswer",
    "RetentionRule",
    "ServedMinutes",
    "ShadowDay",
    "UnitKey",
    "Upload",
    "UploadPart",
    "VersionChange",
    "VersionDiff",
    "Worker",
]
