"""The management API under /v1: files, uploads, batches, fine-tuning, models, privacy, endpoints."""

from __future__ import annotations

from django.urls import path

from modeling.api import (
    batches,
    dataset_versions,
    endpoints,
    erasures,
    file_reading,
    files,
    jobs,
    models,
    personal,
    predictions,
    privacy,
    recommendations,
    uploads,
    usage,
)

app_name = "modeling-api"

urlpatterns = [
    *files.urlpatterns,
    *file_reading.urlpatterns,
    *dataset_versions.urlpatterns,
    *erasures.urlpatterns,
    *uploads.urlpatterns,
    *personal.urlpatterns,
    *batches.urlpatterns,
    path("fine_tuning/jobs", jobs.JobsView.as_view(), name="jobs"),
    path("fine_tuning/quote", jobs.QuoteView.as_view(), name="quote"),
    path("fine_tuning/jobs/<str:job_id>", jobs.JobView.as_view(), name="job"),
    path("fine_tuning/jobs/<str:job_id>/cancel", jobs.CancelView.as_view(), name="job-cancel"),
    path("fine_tuning/jobs/<str:job_id>/pause", jobs.PauseView.as_view(), name="job-pause"),
    path("fine_tuning/jobs/<str:job_id>/resume", jobs.ResumeView.as_view(), name="job-resume"),
    path("fine_tuning/jobs/<str:job_id>/priority", jobs.PriorityView.as_view(), name="job-priority"),
    path("fine_tuning/jobs/<str:job_id>/events", jobs.EventsView.as_view(), name="job-events"),
    path("fine_tuning/jobs/<str:job_id>/checkpoints", jobs.CheckpointsView.as_view(), name="job-checkpoints"),
    path("models", models.ModelsView.as_view(), name="models"),
    path("models/<str:name>", models.ModelView.as_view(), name="model"),
    path("models/<str:name>/card", models.CardView.as_view(), name="model-card"),
    path("models/<str:name>/receipt", models.ReceiptView.as_view(), name="model-receipt"),
    path("models/<str:name>/download", models.DownloadView.as_view(), name="model-download"),
    path("models/<str:name>/usage", usage.ModelUsageView.as_view(), name="model-usage"),
    path("recommend/events", recommendations.EventsView.as_view(), name="recommend-events"),
    path("recommend/events/summary", recommendations.SummaryView.as_view(), name="recommend-summary"),
    path("receipt_keys", models.ReceiptKeysView.as_view(), name="receipt-keys"),
    path("privacy/ledger", privacy.LedgerView.as_view(), name="ledger"),
    path("endpoints", endpoints.EndpointsView.as_view(), name="endpoints"),
    path("endpoints/<str:name>", endpoints.EndpointView.as_view(), name="endpoint"),
    path("endpoints/<str:name>/promote", endpoints.PromoteView.as_view(), name="endpoint-promote"),
    path("endpoints/<str:name>/rollback", endpoints.RollbackView.as_view(), name="endpoint-rollback"),
    path("endpoints/<str:name>/history", endpoints.HistoryView.as_view(), name="endpoint-history"),
    path(
        "endpoints/<str:name>/predictions",
        predictions.EndpointPredictionsView.as_view(),
        name="endpoint-predictions",
    ),
    path("predictions", predictions.PredictionsView.as_view(), name="predictions"),
    path("prediction_rules", predictions.PredictionRulesView.as_view(), name="prediction-rules"),
]
