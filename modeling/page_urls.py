"""Addresses of the product's pages."""

from django.urls import path

from modeling.views import budgets, data, evidence, home, models, playground, privacy, training

app_name = "modeling"
urlpatterns = [
    path("", home.landing, name="landing"),
    path("demo/sign-in/", home.demo_sign_in, name="demo_sign_in"),
    path("t/<slug:slug>/", home.home, name="home"),
    path("t/<slug:slug>/data/", data.data_list, name="data"),
    path("t/<slug:slug>/data/upload/", data.data_upload, name="data_upload"),
    path("t/<slug:slug>/data/sample/", data.add_sample, name="add_sample"),
    path("t/<slug:slug>/data/<str:public_id>/", data.data_detail, name="data_detail"),
    path("t/<slug:slug>/data/<str:public_id>/unit/", data.data_unit, name="data_unit"),
    path("t/<slug:slug>/data/<str:public_id>/delete/", data.data_delete, name="data_delete"),
    path("t/<slug:slug>/training/", training.training_list, name="training"),
    path("t/<slug:slug>/training/new/", training.training_new, name="training_new"),
    path("t/<slug:slug>/training/sample/", training.train_sample, name="train_sample"),
    path("t/<slug:slug>/training/<str:public_id>/", training.job_detail, name="job_detail"),
    path("t/<slug:slug>/training/<str:public_id>/cancel/", training.job_cancel, name="job_cancel"),
    path("t/<slug:slug>/training/<str:public_id>/pause/", training.job_pause, name="job_pause"),
    path("t/<slug:slug>/training/<str:public_id>/resume/", training.job_resume, name="job_resume"),
    path("t/<slug:slug>/training/<str:public_id>/priority/", training.job_priority, name="job_priority"),
    path("t/<slug:slug>/models/", models.model_list, name="models"),
    path("t/<slug:slug>/models/<str:short_id>/", models.model_detail, name="model_detail"),
    path("t/<slug:slug>/models/<str:short_id>/delete/", models.model_delete, name="model_delete"),
    path("t/<slug:slug>/models/<str:short_id>/card.json", evidence.card_json, name="card_json"),
    path("t/<slug:slug>/models/<str:short_id>/card.md", evidence.card_markdown, name="card_markdown"),
    path("t/<slug:slug>/models/<str:short_id>/receipt.json", evidence.receipt, name="receipt"),
    path("t/<slug:slug>/models/<str:short_id>/download/", evidence.model_download, name="model_download"),
    path("t/<slug:slug>/models/<str:short_id>/proof/", evidence.proof, name="model_proof"),
    path("t/<slug:slug>/playground/", playground.playground, name="playground"),
    path("t/<slug:slug>/playground/chat/", playground.playground_chat, name="playground_chat"),
    path("t/<slug:slug>/privacy/", privacy.privacy, name="privacy"),
    path("t/<slug:slug>/privacy/ledger.json", privacy.privacy_export, name="privacy_export"),
    path("t/<slug:slug>/privacy/ledger.jsonl", privacy.privacy_chain, name="privacy_chain"),
    path("t/<slug:slug>/privacy/head.json", privacy.privacy_head, name="privacy_head"),
    path("t/<slug:slug>/privacy/<uuid:account_id>/budget/", budgets.budget, name="budget"),
]
