"""The management API under /v1: files, fine-tuning, models, privacy, endpoints."""

from __future__ import annotations

from django.urls import path

from modeling.api import endpoints, files, jobs, models, privacy

app_name = "modeling-api"

urlpatterns = [
    *files.urlpatterns,
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
    path("receipt_keys", models.ReceiptKeysView.as_view(), name="receipt-keys"),
    path("privacy/ledger", privacy.LedgerView.as_view(), name="ledger"),
    path("endpoints", endpoints.EndpointsView.as_view(), name="endpoints"),
    path("endpoints/<str:name>", endpoints.EndpointView.as_view(), name="endpoint"),
]
